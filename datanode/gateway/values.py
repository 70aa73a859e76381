"""Blocks of dag-json, dag-cbor and their kin as a gateway answers them: as they are, converted, or as a page. Pure.

Sources: specs.ipfs.tech, path-gateway; IPIP-328, which asks for conversions, and IPIP-524, which leaves them to the gateway. A UnixFS
file asked for as plain JSON or CBOR is that file.
"""

from __future__ import annotations

from typing import NamedTuple

from ...common.errors import InternalError, InvalidContent, InvalidRequest
from ...common.ipld import forms
from ...common.ipld.cid import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW, Cid
from ...common.ipld.dag import Block
from .asked import Asked, Form
from .pages import value_page

TYPE_OF = {
    DAG_JSON: "application/vnd.ipld.dag-json",
    DAG_CBOR: "application/vnd.ipld.dag-cbor",
    JSON: "application/json",
    CBOR: "application/cbor",
}
FORM_OF = {DAG_JSON: Form.DAG_JSON, DAG_CBOR: Form.DAG_CBOR, JSON: Form.JSON, CBOR: Form.CBOR}
CODEC_OF = {form: codec for codec, form in FORM_OF.items()}
# What a plain form takes as it is, and what it is made into otherwise.
PLAIN = {Form.JSON: ((JSON, DAG_JSON), DAG_JSON), Form.CBOR: ((CBOR, DAG_CBOR), DAG_CBOR)}
CONVERTED = (RAW, DAG_PB, DAG_CBOR, DAG_JSON)


class NotAcceptable(InvalidRequest):
    """406: the block can't be had in the form that was asked for."""


class Value(NamedTuple):
    """An answer, whole."""

    body: Block
    content_type: str
    tag: str  # what follows the CID in the ETag; "" for the block as it is
    extension: str
    page: bool = False


def is_value(form: Form, codec: int) -> bool:
    """Whether a block of this codec, asked for in this form, is answered as a value, and not as a file or folder."""
    return form in (Form.DAG_JSON, Form.DAG_CBOR) or (
        codec in TYPE_OF and form in (Form.PLAIN, *PLAIN)
    )


def answer(cid: Cid, block: Block, asked: Asked, *, html: bool, path: str) -> Value:
    """*html*: whether a person looks, who gets a page of dag-json and dag-cbor.

    NotAcceptable where the form can't say it; InternalError for a block that is not what its CID says, as the specification has it.
    """
    form, codec = asked.form, cid.codec
    if form == Form.PLAIN:
        own = FORM_OF[codec]
        if html and codec in (DAG_JSON, DAG_CBOR) and not asked.download:
            page = value_page(path, str(cid), cid.codec_name, _value(cid, block))
            return Value(page, "text/html; charset=utf-8", "", "html", page=True)
        return Value(block, TYPE_OF[codec], "", _extension(own))
    wanted = CODEC_OF[form]
    content_type = TYPE_OF[wanted]
    if form in PLAIN:
        fitting, wanted = PLAIN[form]
        if codec in fitting:
            return Value(block, content_type, form.value, _extension(form))
    if codec not in CONVERTED:
        raise NotAcceptable(f"a block of codec {cid.codec_name} can't be had as {form.value}")
    value = _value(cid, block)
    if codec == wanted:
        return Value(block, content_type, form.value, _extension(form))
    try:
        body = forms.encoded(value, wanted)
    except InvalidContent as error:
        raise NotAcceptable(f"{cid} can't be had as {form.value}: {error.message}") from None
    return Value(body, content_type, form.value, _extension(form))


def _value(cid: Cid, block: Block) -> object:
    try:
        return forms.value_of(cid, block)
    except InvalidContent as error:
        raise InternalError(f"{cid} is no {cid.codec_name}: {error.message}") from None


def _extension(form: Form) -> str:
    return "json" if form in (Form.JSON, Form.DAG_JSON) else "cbor"


__all__ = ["NotAcceptable", "Value", "answer", "is_value"]
