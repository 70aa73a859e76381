"""A block's value written in another codec than its own: what `format=dag-json` of a gateway and `dfs dag get` give.

Source: ipld.io/specs/codecs, the logical format of each. Raw blocks are byte strings; UnixFS is no codec, so a file is the dag-pb node
that it is.
"""

from __future__ import annotations

from typing import Any

from ..errors import Unsupported
from . import dag, dag_cbor, dag_json
from .cid import DAG_CBOR, DAG_JSON, Cid
from .dag_pb import PBNode


def value_of(cid: Cid, block: dag.Block) -> Any:
    """The block in the data model. InvalidContent if it is malformed, Unsupported for a codec without a data model."""
    value = dag.decode(cid, block)
    return dag_json.node_of(value) if isinstance(value, PBNode) else value


def encoded(value: Any, codec: int) -> bytes:
    """The one block that *value* is in dag-json or dag-cbor. InvalidContent for what that can't say."""
    if codec == DAG_JSON:
        return dag_json.encode(value)
    if codec == DAG_CBOR:
        return dag_cbor.encode(value)
    raise Unsupported(f"nothing is written in codec 0x{codec:x} here")


__all__ = ["encoded", "value_of"]
