//! Lists that explain and never decide alone: of owners, gates, rules, debuggers. The first few items that can be read
//! are kept; whatever else stands there costs neither the pod nor our memory.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// More than any sensible pod has, few enough that no pod makes this service grow.
pub(super) const KEPT_MAX: usize = 32;
/// As many as the API server lets a restart rule name.
pub(super) const EXIT_CODES_MAX: usize = 255;

/// Reads the first `most` readable items of a list; anything that is no list is an empty one.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D, most: usize) -> Result<Vec<T>, D::Error> {
    d.deserialize_any(Few { most, item: PhantomData })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item<T> {
    Read(T),
    Odd(IgnoredAny),
}

struct Few<T> {
    most: usize,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.most {
            match items.next_element()? {
                Some(Item::Read(item)) => kept.push(item),
                Some(Item::Odd(IgnoredAny)) => {}
                None => return Ok(kept),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Vec::new())
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_str<E>(self, _: &str) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoded, Pod, decode};
    use super::*;

    fn read(json: &str) -> Pod {
        match decode(json) {
            Decoded::Whole(pod) => pod,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn owners_gates_rules_and_debuggers_are_read() {
        let pod = read(
            r#"{"metadata":{"uid":"u","name":"p","namespace":"n","ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"a"},
                {"apiVersion":"batch/v1","kind":"Job","name":"j","uid":"b","controller":true}]},
            "spec":{"terminationGracePeriodSeconds":7,"schedulingGates":[{"name":"quota"}],"containers":[{"name":"main",
                "restartPolicy":"Never","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]}]},
            "status":{"ephemeralContainerStatuses":[{"name":"debug","state":{"terminated":{"exitCode":137}}}]}}"#,
        );
        let owner = pod.metadata.controller().expect("a controller");
        assert_eq!((&*owner.kind, &*owner.name, &*owner.uid), ("Job", "j", "b"));
        assert_eq!(pod.metadata.owner_references.len(), 2);
        assert_eq!(&*pod.spec.scheduling_gates[0].name, "quota");
        assert_eq!(pod.spec.termination_grace_period_seconds, Some(7));
        let rule = &pod.spec.containers[0].restart_policy_rules[0];
        assert_eq!((&*rule.action, &*rule.exit_codes.operator, &*rule.exit_codes.values), ("Restart", "In", &[42][..]));
        assert_eq!(&*pod.status.ephemeral_container_statuses[0].name, "debug");
    }

    #[test]
    fn odd_lists_cost_nothing_and_long_ones_are_cut() {
        for odd in ["null", "7", "-7", "1.5", "true", "\"x\"", "{\"a\":[1]}", "[]", "[1,null,\"x\"]"] {
            let pod = read(&format!(
                r#"{{"metadata":{{"uid":"u","name":"p","namespace":"n","ownerReferences":{odd}}},"spec":{{"schedulingGates":{odd}}},
                "status":{{"ephemeralContainerStatuses":{odd}}}}}"#
            ));
            assert!(pod.metadata.owner_references.is_empty() && pod.spec.scheduling_gates.is_empty(), "{odd}");
            assert!(pod.status.ephemeral_container_statuses.is_empty(), "{odd}");
        }
        let gates = vec![r#"{"name":"g"}"#; KEPT_MAX + 9].join(",");
        let pod = read(&format!(
            r#"{{"metadata":{{"uid":"u","name":"p","namespace":"n"}},"spec":{{"schedulingGates":["odd",{gates}],"nodeName":"n"}}}}"#
        ));
        assert_eq!((pod.spec.scheduling_gates.len(), pod.spec.node_name.as_deref()), (KEPT_MAX, Some("n")));
    }
}
