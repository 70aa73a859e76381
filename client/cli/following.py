"""Commands about the change stream: events, webhook."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from ...common.follow import (
    AddWebhook,
    CommitOffset,
    DeleteGroup,
    GetDeadLetters,
    GetGroups,
    GetWebhooks,
    PauseWebhook,
    SettleDeadLetters,
    WebhookName,
)
from ...common.messages import ReadEvents
from ...common.model import Event
from ...common.runtime import format_time
from .support import (
    Refused,
    Shell,
    change_command,
    json_option,
    print_json,
    shell_command,
    shown,
    table,
)

WAIT_S = 20.0


def _shell(ctx: click.Context) -> Shell:
    return Shell(ctx.find_root().obj)


# --- events --------------------------------------------------------------------------------------


@click.group(name="events", invoke_without_command=True)
@click.option("--after", type=click.IntRange(min=0), default=0, help="Begin after this offset.")
@click.option("--limit", type=click.IntRange(min=1), help="So many at most.")
@click.option("--path", "prefix", default="", help="Only about this path and what is below it.")
@click.option("--kind", "kinds", multiple=True, help="Only of this kind (repeatable).")
@click.option(
    "--group",
    default="",
    metavar="NAME",
    help="Begin where this consumer group has come to, and move it on as events are printed.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
@json_option
@click.pass_context
def events_command(
    ctx: click.Context,
    after: int,
    limit: int | None,
    prefix: str,
    kinds: tuple[str, ...],
    group: str,
    follow: bool,
    as_json: bool,
) -> None:
    """The change stream: every operation that changed the namespace, in order."""
    if ctx.invoked_subcommand is not None:
        return
    shell = _shell(ctx)
    left = limit if limit is not None else 2**62
    prefix = shell.path(prefix) if prefix else ""
    wait_s = 0.0
    while left > 0:
        page = shell.call(
            "events",
            ReadEvents(
                after=after,
                path_prefix=prefix,
                limit=min(1_000, left),
                kinds=list(kinds),
                group=group,
                wait_s=wait_s,
            ),
        )
        for event in page.events:
            _print_event(event, as_json)
        left -= len(page.events)
        moved = page.next_after > after
        after = page.next_after
        if group and moved and (page.events or not follow):
            # Only what has left this process is dealt with.
            sys.stdout.flush()
            shell.call("commit_offset", CommitOffset(group=group, offset=after))
        elif follow and page.events:
            sys.stdout.flush()
        if after >= page.last_offset or not moved:
            if not follow:
                return
            wait_s = WAIT_S
        else:
            wait_s = 0.0


def _print_event(event: Event, as_json: bool) -> None:
    if as_json:
        print_json(event)
        return
    arrow = f" -> {shown(event.destination)}" if event.destination else ""
    detail = f"  {event.detail}" if event.detail else ""
    when = format_time(event.time_ms, "%Y-%m-%d %H:%M:%S")
    print(
        f"{event.offset:>8}  {when}  {event.user:<10} {event.kind:<9}"
        f" {shown(event.path)}{arrow}{detail}"
    )


def sub_command(
    group: click.Group, name: str, *, changes: bool = False
) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of *group*; one that *changes* things says so in JSON where it is asked to."""
    make = change_command if changes else shell_command

    def decorate(function: Callable[..., Any]) -> click.Command:
        command = make(name=name)(function)
        group.add_command(command)
        return command

    return decorate


@sub_command(events_command, "groups")
@json_option
def groups_command(shell: Shell, as_json: bool) -> None:
    """Consumer groups: how far each has come."""
    found = shell.call("event_groups", GetGroups())
    if as_json:
        print_json(found)
        return
    print(f"events {found.first_offset} to {found.last_offset} are kept")
    rows = [("Group", "Owner", "Offset", "Behind", "Committed")]
    for group in found.groups:
        when = format_time(group.committed_ms)
        rows.append((group.name, group.owner or "-", str(group.offset), str(group.lag), when))
    for line in table(rows, right=(2, 3)):
        print(line)


@sub_command(events_command, "seek", changes=True)
@click.argument("group")
@click.argument("offset", type=click.IntRange(min=0))
def seek_command(shell: Shell, group: str, offset: int) -> None:
    """Have GROUP go on after OFFSET; make it, if it is not there."""
    shell.call("commit_offset", CommitOffset(group=group, offset=offset))


@sub_command(events_command, "forget", changes=True)
@click.argument("group")
def forget_command(shell: Shell, group: str) -> None:
    """Delete GROUP."""
    shell.call("delete_group", DeleteGroup(group=group))


# --- webhooks --------------------------------------------------------------------------------------


@click.group(name="webhook")
def webhook_command() -> None:
    """Have events POSTed to a URL, signed (superusers)."""


@sub_command(webhook_command, "add")
@click.argument("name")
@click.argument("url")
@click.option(
    "--secret-file",
    type=click.File("r"),
    help="File with the secret of the signature; else it is in TWINFS_WEBHOOK_SECRET.",
)
@click.option("--path", "prefix", default="", help="Only about this path and what is below it.")
@click.option("--kind", "kinds", multiple=True, help="Only of this kind (repeatable).")
@click.option(
    "--after", type=click.IntRange(min=0), help="Begin after this offset, not with what comes."
)
@json_option
def webhook_add_command(
    shell: Shell,
    name: str,
    url: str,
    secret_file: Any,
    prefix: str,
    kinds: tuple[str, ...],
    after: int | None,
    as_json: bool,
) -> None:
    """Send events to URL from now on; one of that NAME is replaced."""
    secret = (
        secret_file.read().strip()
        if secret_file is not None
        else os.environ.get("TWINFS_WEBHOOK_SECRET", "")
    )
    if len(secret) < 16:
        raise Refused("the secret must have 16 characters at least: --secret-file FILE")
    shell.call(
        "add_webhook",
        AddWebhook(
            name=name,
            url=url,
            secret=secret,
            path_prefix=shell.path(prefix) if prefix else "",
            kinds=list(kinds),
            after=after,
        ),
    )
    if as_json:
        # Not the request as it was sent: it has the secret in it.
        (made,) = [h for h in shell.call("webhooks", GetWebhooks()).webhooks if h.name == name]
        print_json(made)


@sub_command(webhook_command, "ls")
@json_option
def webhook_ls_command(shell: Shell, as_json: bool) -> None:
    """Webhooks, and how they do."""
    found = shell.call("webhooks", GetWebhooks()).webhooks
    if as_json:
        for hook in found:
            print_json(hook)
        return
    rows = [("Name", "State", "Behind", "Dead", "URL", "Path", "Kinds", "Last error")]
    for hook in found:
        state = "paused" if hook.paused else f"{hook.failures} failures" if hook.failures else "ok"
        rows.append(
            (
                hook.name,
                state,
                str(hook.lag),
                str(hook.dead),
                hook.url,
                hook.path_prefix or "/",
                ",".join(hook.kinds) or "all",
                hook.last_error,
            )
        )
    for line in table(rows, right=(2, 3)):
        print(line)


@sub_command(webhook_command, "rm", changes=True)
@click.argument("name")
def webhook_rm_command(shell: Shell, name: str) -> None:
    """Delete a webhook, and its dead letters."""
    shell.call("delete_webhook", WebhookName(name=name))


@sub_command(webhook_command, "pause", changes=True)
@click.argument("name")
def webhook_pause_command(shell: Shell, name: str) -> None:
    """Send nothing for now; it goes on later where it was."""
    shell.call("pause_webhook", PauseWebhook(name=name, paused=True))


@sub_command(webhook_command, "resume", changes=True)
@click.argument("name")
def webhook_resume_command(shell: Shell, name: str) -> None:
    """Go on sending."""
    shell.call("pause_webhook", PauseWebhook(name=name, paused=False))


@sub_command(webhook_command, "dead")
@click.argument("name")
@click.option("--retry", is_flag=True, help="Send them once more.")
@click.option("--drop", is_flag=True, help="Forget them.")
@json_option
def webhook_dead_command(shell: Shell, name: str, retry: bool, drop: bool, as_json: bool) -> None:
    """The events that a webhook would not take."""
    if retry and drop:
        raise Refused("--retry and --drop exclude each other")
    if retry or drop:
        request = SettleDeadLetters(name=name, action="retry" if retry else "drop")
        settled = shell.call("settle_dead_letters", request)
        if as_json:
            print_json({"action": request.action, "count": settled.count})
        else:
            print(f"{settled.count} {'are sent once more' if retry else 'are forgotten'}")
        return
    after = 0
    while True:
        letters = shell.call("dead_letters", GetDeadLetters(name=name, after=after)).letters
        if not letters:
            return
        for letter in letters:
            if as_json:
                print_json(letter)
            else:
                event = letter.event
                print(
                    f"{event.offset:>8}  {event.kind:<9} {shown(event.path)}"
                    f"  ({letter.attempts} attempts: {letter.error})"
                )
        after = letters[-1].event.offset
