//! What the answer to a transactional call asks for: read from its flags, never from its text. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What the answer to a transactional call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fenced,
    Abort,
    Again,
    Unknown,
}

impl Kind {
    pub(super) fn of(error: &KafkaError) -> Self {
        match error {
            KafkaError::Transaction(e) => {
                Self::from_flags(e.is_fatal(), e.txn_requires_abort(), e.is_retriable(), e.code())
            }
            error => {
                error.rdkafka_error_code().map_or(Self::Unknown, |code| Self::from_flags(false, false, false, code))
            }
        }
    }

    /// The order matters: an error may be fatal and retriable at once, and then it is fatal.
    fn from_flags(fatal: bool, abort: bool, retriable: bool, code: RDKafkaErrorCode) -> Self {
        match (fatal, abort, retriable) {
            _ if is_fenced(code) => Self::Fenced,
            (true, _, _) => Self::Unknown,
            (_, true, _) => Self::Abort,
            (_, _, true) => Self::Again,
            (false, false, false) => Self::Unknown,
        }
    }
}

pub(super) fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn answer_of_a_transactional_call_is_judged_fatal_first() {
        use RDKafkaErrorCode as Code;
        let cases = [
            ("fenced", true, false, false, Code::Fenced, Kind::Fenced),
            ("old epoch is fenced, not abortable", false, true, false, Code::InvalidProducerEpoch, Kind::Fenced),
            ("fatal after a commit", true, true, true, Code::InvalidTransactionalState, Kind::Unknown),
            ("abortable", false, true, false, Code::MessageTimedOut, Kind::Abort),
            ("retriable", false, false, true, Code::OperationTimedOut, Kind::Again),
            ("none of the three", false, false, false, Code::Unknown, Kind::Unknown),
        ];
        for (name, fatal, abort, retriable, code, expected) in cases {
            assert_eq!(Kind::from_flags(fatal, abort, retriable, code), expected, "{name}");
        }
    }
}
