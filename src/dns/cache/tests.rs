//! The name cache: scope, age, order and size.

use super::*;

const HOST: u32 = 4_026_531_840;
const OTHER: u32 = 4_026_532_000;
const S: u64 = NS_PER_S;

fn binding(name: &str, addr: &str, ttl: u32) -> Binding {
    Binding { name: name.into(), addr: addr.parse().unwrap(), ttl }
}

fn seen(cache: &mut NameCache, netns: u32, addr: &str, at: u64) -> (String, bool) {
    let names = cache.names(netns, addr.parse().unwrap(), at);
    (names.all().join(" "), names.guess)
}

fn certain(names: &str) -> (String, bool) {
    (names.into(), false)
}

fn guessed(names: &str) -> (String, bool) {
    (names.into(), true)
}

#[test]
fn answers_are_valid_for_their_ttl_but_at_least_a_minute() {
    let mut cache = NameCache::default();
    cache.learn(HOST, 10 * S, &binding("short", "192.0.2.1", 5));
    cache.learn(HOST, 10 * S, &binding("long", "192.0.2.2", 3600));
    cache.learn(HOST, 10 * S, &binding("endless", "192.0.2.3", u32::MAX));
    for (addr, at, expected) in [
        ("192.0.2.1", 10 * S - 1, ""),
        ("192.0.2.1", 10 * S, "short"),
        ("192.0.2.1", 70 * S - 1, "short"),
        ("192.0.2.1", 70 * S, ""),
        ("192.0.2.2", 3610 * S - 1, "long"),
        ("192.0.2.2", 3610 * S, ""),
        ("192.0.2.3", 1000 * 3600 * S, "endless"),
        ("192.0.2.4", 10 * S, ""),
    ] {
        assert_eq!(seen(&mut cache, HOST, addr, at), certain(expected), "{addr} at {at}");
    }
}

#[test]
fn new_answers_never_shorten_the_validity() {
    let mut cache = NameCache::default();
    cache.learn(HOST, 0, &binding("a", "192.0.2.1", 600));
    cache.learn(HOST, 100 * S, &binding("a", "192.0.2.1", 60));
    assert_eq!(seen(&mut cache, HOST, "192.0.2.1", 599 * S), certain("a"));
    assert_eq!(seen(&mut cache, HOST, "192.0.2.1", 50 * S), certain("a"), "opened in between");
    cache.learn(HOST, 1000 * S, &binding("a", "192.0.2.1", 60));
    assert_eq!(seen(&mut cache, HOST, "192.0.2.1", 700 * S), certain(""), "a gap stays a gap");
    assert_eq!(seen(&mut cache, HOST, "192.0.2.1", 1000 * S), certain("a"));
}

#[test]
fn four_names_are_kept_latest_first() {
    let mut cache = NameCache::default();
    for (time, name) in ["a", "b", "c", "a", "d", "e"].into_iter().enumerate() {
        cache.learn(HOST, time as u64, &binding(name, "192.0.2.1", 60));
    }
    assert_eq!(seen(&mut cache, HOST, "192.0.2.1", S), certain("e d a c"));
}

#[test]
fn each_namespace_has_its_own_names() {
    let mut cache = NameCache::default();
    cache.learn(HOST, 0, &binding("host.example", "192.0.2.1", 60));
    cache.learn(OTHER, 0, &binding("other.example", "192.0.2.1", 60));
    assert_eq!(seen(&mut cache, HOST, "192.0.2.1", 1), certain("host.example"));
    assert_eq!(seen(&mut cache, OTHER, "192.0.2.1", 1), certain("other.example"));
}

#[test]
fn names_from_other_namespaces_are_guesses() {
    let mut cache = NameCache::default();
    cache.learn(HOST, 0, &binding("a", "192.0.2.1", 60));
    cache.learn(OTHER, 1, &binding("b", "192.0.2.1", 60));
    cache.learn(OTHER, 1, &binding("a", "192.0.2.1", 60));
    assert_eq!(seen(&mut cache, 1, "192.0.2.1", 2), guessed("a b"));
    assert_eq!(seen(&mut cache, 1, "192.0.2.1", 61 * S), certain(""), "guesses age, too");
    cache.learn(1, 2, &binding("mine", "192.0.2.1", 60));
    assert_eq!(seen(&mut cache, 1, "192.0.2.1", 2), certain("mine"));
}

#[test]
fn loopback_and_link_local_addresses_are_never_guessed() {
    let mut cache = NameCache::default();
    for addr in ["127.0.0.1", "169.254.1.1", "0.0.0.0", "::1", "fe80::1", "::"] {
        cache.learn(HOST, 0, &binding("a", addr, 60));
        assert_eq!(seen(&mut cache, HOST, addr, 1), certain("a"));
        assert_eq!(seen(&mut cache, OTHER, addr, 1), certain(""), "{addr}");
    }
}

#[test]
fn mapped_addresses_are_looked_up_as_ipv4() {
    let mut cache = NameCache::default();
    cache.learn(HOST, 0, &binding("a", "::ffff:192.0.2.1", 60));
    assert_eq!(seen(&mut cache, HOST, "192.0.2.1", 1), certain("a"));
    assert_eq!(seen(&mut cache, HOST, "::ffff:192.0.2.1", 1), certain("a"));
}

#[test]
fn the_least_recently_used_address_is_evicted() {
    let mut cache = NameCache::default();
    let addr = |n: u32| IpAddr::from(n.to_be_bytes()).to_string();
    let kept = addr(1 << 24);
    cache.learn(HOST, 0, &binding("kept", &kept, 60));
    for n in 0..3 * NAMES_MAX as u32 {
        cache.learn(HOST, 0, &binding(&format!("n{n}"), &addr((2 << 24) + n), 60));
        assert_eq!(seen(&mut cache, HOST, &kept, 0), certain("kept"));
    }
    assert_eq!(cache.len, NAMES_MAX);
    assert_eq!(cache.slots.values().map(|slot| slot.leases.len()).sum::<usize>(), NAMES_MAX);
    assert_eq!(cache.by_use.len(), cache.slots.len());
    let last = 3 * NAMES_MAX as u32 - 1;
    assert_eq!(seen(&mut cache, HOST, &addr((2 << 24) + last), 0), certain(&format!("n{last}")));
    let gone = last + 1 - NAMES_MAX as u32;
    assert_eq!(seen(&mut cache, HOST, &addr((2 << 24) + gone), 0), certain(""));
}

proptest::proptest! {
    /// Compares the cache with one that keeps every answer and searches all of them.
    #[test]
    fn the_cache_agrees_with_a_list_of_all_answers(
        answers in proptest::collection::vec((0..3_u32, 0..4_u8, 0..3_u8, 0..200_u32), 0..60),
        asked in (0..3_u32, 0..3_u8, 0..100_u64),
    ) {
        let mut cache = NameCache::default();
        let addr = |n: u8| IpAddr::from([192, 0, 2, n]);
        let now = answers.len() as u64 * 10 * S;
        for (time, (netns, name, host, ttl)) in answers.iter().enumerate() {
            let binding = Binding { name: format!("n{name}").into(), addr: addr(*host), ttl: *ttl };
            cache.learn(*netns, time as u64 * 10 * S, &binding);
        }
        let (netns, host, later) = asked;
        let at = now + later * S;
        let held = |own: bool| {
            let mut names: Vec<String> = Vec::new();
            for (time, (scope, name, about, _)) in answers.iter().enumerate().rev() {
                let alive = answers.iter().enumerate().any(|(t, (s, n, a, ttl))| {
                    (s, n, a) == (scope, name, about)
                        && t as u64 * 10 * S + u64::from((*ttl).max(60)) * S > at
                        // the lease is still the one that was extended at `time`
                        && t <= time
                });
                let name = format!("n{name}");
                if alive && *about == host && (*scope == netns) == own && !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        };
        let own = held(true);
        let expected = if own.is_empty() { (held(false), true) } else { (own, false) };
        let got = cache.names(netns, addr(host), at);
        let got_names: Vec<String> = got.all().iter().map(|name| name.to_string()).collect();
        proptest::prop_assert_eq!(&got_names, &expected.0);
        proptest::prop_assert_eq!(got.guess, expected.1 && !expected.0.is_empty());
    }
}
