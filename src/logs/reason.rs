//! Why captured output is not complete: the words of `logs.reason`. Consumers match on them: add freely, rename nothing.
//! What each means for a user stands in docs/logs.md; a test holds that page to this list.

/// The node no longer has the log: the kubelet answered with a text that says so instead of output.
pub const LOG_GONE: &str = "log_gone";
/// The Pod object, or the pod on its node, is gone.
pub const POD_GONE: &str = "pod_gone";
/// Another pod has the name now; whose output was read is not known, so none is told.
pub const POD_REPLACED: &str = "pod_replaced";
/// The container never started, or the node does not know it.
pub const CONTAINER_NOT_STARTED: &str = "container_not_started";
/// The monitor may not read logs: its role lacks the verb `get` on `pods/log`.
pub const FORBIDDEN: &str = "forbidden";
/// The API server could not reach the kubelet.
pub const NODE_UNREACHABLE: &str = "node_unreachable";
/// The capture deadline passed.
pub const DEADLINE: &str = "deadline";
/// A framed report is not all there: its length or its second frame promises more than came.
pub const FRAME_INCOMPLETE: &str = "frame_incomplete";
/// Something that is no frame follows the first frame; it is kept as standard output.
pub const FRAME_BROKEN: &str = "frame_broken";
/// Frames were promised (`--report framed`), and the output begins with none: rotated away, or never printed.
pub const FRAME_MISSING: &str = "frame_missing";
/// The container was restarted more than once since: the node keeps only one log before the latest.
pub const ATTEMPT_GONE: &str = "attempt_gone";
/// The node began a new file while the container ran, and what stood in the old one is lost.
pub const ROTATED: &str = "rotated";
/// The answer ended before the log did, each time: the way to the node broke.
pub const CUT_SHORT: &str = "cut_short";
/// The pod was deleted while it ran. Its output was followed until the end that is told, which may not be all of it.
pub const FOLLOWED: &str = "followed";
/// The broker takes no record with this output.
pub const RECORD_TOO_LARGE: &str = "record_too_large";
/// Reading failed in another way.
pub const READ_ERROR: &str = "read_error";
/// All was read, but nobody could say afterwards whether the name still was this pod's.
pub const UNVERIFIED: &str = "unverified";

/// Every reason.
pub const ALL: [&str; 17] = [
    LOG_GONE,
    POD_GONE,
    POD_REPLACED,
    CONTAINER_NOT_STARTED,
    FORBIDDEN,
    NODE_UNREACHABLE,
    DEADLINE,
    FRAME_INCOMPLETE,
    FRAME_BROKEN,
    FRAME_MISSING,
    ATTEMPT_GONE,
    ROTATED,
    CUT_SHORT,
    FOLLOWED,
    RECORD_TOO_LARGE,
    READ_ERROR,
    UNVERIFIED,
];
