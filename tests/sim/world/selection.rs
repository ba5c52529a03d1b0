//! What a LIST or a WATCH selects, as the real server reads it: by name, by label, and pods by the hash of their UIDs.

use super::etcd::Object;

/// Label of member Leases.
pub const MEMBERS_OF: &str = "pod-monitor.dev/members-of";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// `fieldSelector=metadata.name=...`: only that object, whatever its labels.
    Named(String),
    /// `labelSelector=...`: the only one there is for its kind.
    Labelled,
    /// The same, and `shardSelector=shardRange(object.metadata.uid, from, to)`.
    Shard { from: u128, to: u128 },
}

impl Selection {
    pub fn takes(&self, object: &Object) -> bool {
        match self {
            Self::Named(name) => *object.name == **name,
            Self::Labelled => object.labelled,
            Self::Shard { from, to } => object.labelled && (*from..*to).contains(&u128::from(object.hash)),
        }
    }

    /// Reads `shardRange(object.metadata.uid, '0x..', '0x..')`.
    pub fn of_shard(text: &str) -> Option<Self> {
        let range = text.strip_prefix("shardRange(object.metadata.uid, '0x")?.strip_suffix("')")?;
        let (from, to) = range.split_once("', '0x")?;
        let hash = |digits: &str| u128::from_str_radix(digits, 16).ok();
        Some(Self::Shard { from: hash(from)?, to: hash(to)? })
    }
}

/// FNV-1a, 64 bits: what the server hashes UIDs by.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Undoes percent-encoding.
pub fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        bytes.extend(u8::from_str_radix(code, 16).ok());
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8_lossy(&bytes).replace('+', " ")
}
