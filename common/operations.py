"""Every operation a NameNode answers: request, response, and whether it writes.

`OPERATIONS` is the one registry. `POST /v1/<name>` and the WebSocket `/v1/rpc` share everything behind it.
"""

from __future__ import annotations

import msgspec

from . import access as a
from . import admin
from . import content as c
from . import follow as f
from . import messages as m
from . import watch as w
from .model import ContentSummary, FileBlocks, FileStatus, Struct, TargetBlock


class Operation(msgspec.Struct, frozen=True):
    """One entry of the registry. *writes*: a request id makes a resend harmless."""

    name: str
    request: type[Struct]
    response: type[Struct]
    writes: bool
    for_nodes: bool = False  # only DataNodes call it


_Entry = tuple[str, type[Struct], type[Struct]]


def _registry() -> dict[str, Operation]:
    read: list[_Entry] = [
        ("stat", m.Stat, FileStatus),
        ("stat_many", m.StatMany, m.StatusList),
        ("list", m.ListDirectory, m.DirectoryPage),
        ("summarize", m.Summarize, ContentSummary),
        ("locate", m.Locate, FileBlocks),
        ("locate_many", m.LocateMany, m.LocatedMany),
        ("get_xattrs", m.GetXattrs, m.Xattrs),
        ("get_acl", a.GetAcl, a.AclStatus),
        ("check_access", a.CheckAccess, m.Done),
        ("events", m.ReadEvents, m.EventPage),
        ("report", m.GetReport, m.ClusterReport),
        ("overview", w.GetOverview, w.Overview),
        ("history", w.GetHistory, w.History),
        ("page_token", w.GetPageToken, w.PageToken),
        ("event_groups", f.GetGroups, f.Groups),
        ("webhooks", f.GetWebhooks, f.Webhooks),
        ("dead_letters", f.GetDeadLetters, f.DeadLetters),
        ("make_checkpoint", f.MakeCheckpoint, f.Checkpoint),
        ("checkpoints", f.GetCheckpoints, f.Checkpoints),
        ("event_proof", f.GetProof, f.Proof),
        ("verify_events", f.VerifyEvents, f.Verified),
        ("server_info", m.GetServerInfo, m.ServerInfo),
        ("report_bad_replicas", m.ReportBadReplicas, m.Done),
        ("check", admin.Check, admin.CheckPage),
        ("check_cluster", admin.CheckCluster, admin.ClusterCheck),
        ("path_cids", c.GetCids, c.PathCids),
        ("find_cids", c.FindCids, c.FoundCids),
        ("find_blocks", c.FindBlocks, c.FoundBlocks),
        ("list_pins", c.ListPins, c.PinPage),
        ("list_contents", c.ListContents, c.ContentPage),
        ("content_totals", c.GetContentTotals, c.ContentTotals),
    ]
    write: list[_Entry] = [
        ("mkdirs", m.Mkdirs, FileStatus),
        ("mkdirs_many", m.MkdirsMany, m.StatusList),
        ("create", m.Create, FileStatus),
        ("add_block", m.AddBlock, TargetBlock),
        ("abandon_block", m.AbandonBlock, m.Done),
        ("update_pipeline", m.UpdatePipeline, TargetBlock),
        ("sync", m.Sync, m.Done),
        ("complete", m.Complete, FileStatus),
        ("append", m.Append, m.OpenedFile),
        ("cancel_append", m.CancelAppend, m.Done),
        ("truncate", m.Truncate, m.OpenedFile),
        ("allocate", m.Allocate, m.Allocation),
        ("put_files", m.PutFiles, m.StatusList),
        ("rename", m.Rename, m.Renamed),
        ("rename_all", m.RenameAll, m.RenamedAll),
        ("delete", m.Delete, m.Deleted),
        ("delete_many", m.DeleteMany, m.DeletedMany),
        ("move_to_trash", m.MoveToTrash, m.Renamed),
        ("concat", m.Concat, FileStatus),
        ("copy", m.Copy, FileStatus),
        ("set_replication", m.SetReplication, m.ReplicationSet),
        ("set_mode", m.SetMode, m.Done),
        ("set_owner", m.SetOwner, m.Done),
        ("set_times", m.SetTimes, m.Done),
        ("set_xattr", m.SetXattr, m.Done),
        ("remove_xattr", m.RemoveXattr, m.Done),
        ("set_quota", m.SetQuota, m.Done),
        ("set_acl", a.SetAcl, m.Done),
        ("modify_acl", a.ModifyAcl, m.Done),
        ("remove_acl_entries", a.RemoveAclEntries, m.Done),
        ("remove_acl", a.RemoveAcl, m.Done),
        ("renew_lease", m.RenewLease, m.Done),
        ("commit_offset", f.CommitOffset, m.Done),
        ("delete_group", f.DeleteGroup, m.Done),
        ("add_webhook", f.AddWebhook, m.Done),
        ("delete_webhook", f.WebhookName, m.Done),
        ("pause_webhook", f.PauseWebhook, m.Done),
        ("settle_dead_letters", f.SettleDeadLetters, f.Settled),
        ("recover_lease", m.RecoverLease, m.Recovered),
    ]
    write += [
        ("set_dag", c.SetDag, c.PathCid),
        ("cache_cid", c.CacheCid, m.Done),
        ("begin_add", c.BeginAdd, m.Done),
        ("end_add", c.EndAdd, m.Done),
        ("have_contents", c.HaveContents, c.HadContents),
        ("put_contents", c.PutContents, c.PutContentsAnswer),
        ("link_file", c.LinkFile, FileStatus),
        ("pin_add", c.PinAdd, c.Pin),
        ("pin_remove", c.PinRemove, c.PinsRemoved),
        ("collect", c.Collect, c.Collected),
    ]
    nodes: list[_Entry] = [
        ("register", m.Register, m.Registered),
        ("heartbeat", m.Heartbeat, m.HeartbeatAnswer),
        ("block_report", m.BlockReportPage, m.Done),
        ("incremental_report", m.IncrementalReport, m.Done),
        ("commit_recovery", m.CommitRecovery, m.Done),
        ("volume_answer", m.VolumeAnswer, m.Done),
    ]
    # Safe to resend: doing them twice is doing them once.
    operators: list[_Entry] = [
        ("administer_nodes", admin.AdministerNodes, admin.NodeList),
        ("safe_mode", admin.SetSafeMode, admin.SafeModeState),
        ("refresh_topology", admin.Refresh, admin.Refreshed),
        ("order_nodes", admin.OrderNodes, m.Done),
        ("list_volumes", admin.ListVolumes, admin.NodeVolumes),
        ("order_volume", admin.OrderVolume, admin.NodeVolumes),
        ("start_balancer", admin.StartBalancer, admin.BalancerStatus),
        ("balancer", admin.ControlBalancer, admin.BalancerStatus),
    ]
    operations = [Operation(n, q, r, False) for n, q, r in read + operators]
    operations += [Operation(n, q, r, True) for n, q, r in write]
    operations += [Operation(n, q, r, True, for_nodes=True) for n, q, r in nodes]
    return {operation.name: operation for operation in operations}


OPERATIONS: dict[str, Operation] = _registry()
