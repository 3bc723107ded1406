use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::time::{Now, WallTime};

const NOW: Now = Now { instant: Instant::ZERO, wall: WallTime(0) };

fn key(name: u16, incarnation: u8) -> InstanceKey {
    let instance = format!("pod-{}", name / 2).parse().unwrap();
    InstanceKey::new(format!("s{}", name % 2).parse().unwrap(), instance, Incarnation(incarnation.into()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn members_are_found_and_sorted_as_in_a_map(
        steps in prop::collection::vec((any::<bool>(), 0..300_u16, 0..4_u8), 1..900),
    ) {
        let mut members = Members::new(NOW.instant);
        let mut map: BTreeMap<InstanceKey, MemberId> = BTreeMap::new();
        for (removed, name, incarnation) in steps {
            let key = key(name, incarnation);
            match (map.get(&key).copied(), removed && name % 3 == 0) {
                (Some(id), true) => {
                    members.remove(id);
                    map.remove(&key);
                }
                (None, false) => {
                    map.insert(key.clone(), members.insert(Member::new(key, NOW.instant)));
                }
                _ => {}
            }
        }
        prop_assert!(members.iter().map(|member| &member.key).eq(map.keys()));
        prop_assert_eq!(members.len(), map.len());
        prop_assert_eq!(members.unordered().count(), map.len());
        for (key, id) in &map {
            prop_assert_eq!(members.id(key), Some(*id));
            let same = |other: &&InstanceKey| (&other.service, &other.instance) == (&key.service, &key.instance);
            prop_assert!(members.incarnations(key).map(|(_, it)| &it.key).eq(map.keys().filter(same)));
        }
    }
}

#[test]
fn a_member_takes_little_room() {
    assert!(size_of::<Option<Member>>() <= 112, "{}", size_of::<Option<Member>>());
}
