//! A plan's text → the plan, or all its mistakes at once, each with its place.

use std::io;

use config::ids::TenantId;
use config::mistake::{Mistake, conclude, render};
use config::spot::{Fields, Notes, Spot, Wanted};
use config::tree::{self, Value};
use config::units::Rate;

use super::{CALM_MS, FOR_MS, Plan};
use crate::edition::{self, Edition};
use crate::event::Token;
use crate::expectation::Expectation;
use crate::moment;
use crate::scene::{CALLERS_MAX, Caller, NODES_MAX, Protocol, Scene, Spread, UPSTREAMS_MAX};
use crate::traffic;
use crate::weather::{Kind, NAMES, Trouble};

/// What was said beside the file, and stands over it.
#[derive(Clone, Debug)]
pub struct Flags {
    /// Instead of the file's.
    pub seed: Option<u64>,
    /// Instead of the file's.
    pub nodes: Option<u8>,
    /// Instead of the file's.
    pub for_ms: Option<u64>,
    /// Kinds of trouble: of those that are drawn, and of those that the file has.
    pub kinds: Vec<&'static str>,
    /// Editions instead of the file's; empty: the file's.
    pub gateway: Vec<Edition>,
    /// A file's name and its text, with expectations instead of the plan's.
    pub expect: Option<(String, String)>,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            seed: None,
            nodes: None,
            for_ms: None,
            kinds: NAMES.to_vec(),
            gateway: Vec::new(),
            expect: None,
        }
    }
}

const FIELDS: [&str; 11] = [
    "seed",
    "for",
    "calm",
    "nodes",
    "network",
    "disk",
    "snapshot_after_entries",
    "gateway",
    "traffic",
    "weather",
    "expect",
];
const CALLER_FIELDS: [&str; 9] =
    ["route", "tenant", "client", "rate", "at_once", "spread", "method", "token", "protocol"];
/// Longer ones would take hours.
const FOR_MS_MAX: u64 = 86_400_000;
const DELAY_MS_MAX: u64 = 10_000;
const TROUBLES_MAX: usize = 10_000;
const EDITIONS_MAX: usize = 100;
/// A caller sends at whole milliseconds, several at once if it must.
const PER_S_MAX: u64 = 10_000;
const AT_ONCE_MAX: u64 = 1_000;

/// Reads a plan; what it leaves out is drawn from the seed.
///
/// - `name`: the file's, as a reader of its mistakes knows it.
/// - `open`: reads a file that the plan names.
///
/// # Errors
/// All mistakes, of the plan and of its gateway documents, as a text.
pub fn read(
    name: &str,
    text: &str,
    flags: &Flags,
    open: &dyn Fn(&str) -> io::Result<String>,
) -> Result<Plan, String> {
    if let Some(nodes) = flags.nodes.filter(|nodes| !(1..=NODES_MAX).contains(nodes)) {
        return Err(format!("found {nodes} nodes, wanted 1 to {NODES_MAX}"));
    }
    if let Some(for_ms) = flags.for_ms.filter(|for_ms| *for_ms > FOR_MS_MAX) {
        return Err(format!("found a run of {}, wanted a day at most", moment::show(for_ms)));
    }
    let tree = tree::read(text).map_err(|mistake| render(name, text, &[mistake]))?;
    let mut reader = Reader { name, open, notes: Notes::default(), documents: String::new() };
    let plan = reader.plan(&Spot::root(&tree), flags);
    let Reader { notes, documents, .. } = reader;
    let plan = conclude(notes.mistakes, plan).map(|checked| checked.value);
    let mistakes = |mistakes: Vec<Mistake>| render(name, text, &mistakes) + &documents;
    match plan {
        Ok(plan) if documents.is_empty() => Ok(plan),
        Ok(_) => Err(documents),
        Err(found) => Err(mistakes(found)),
    }
}

struct Reader<'r> {
    name: &'r str,
    open: &'r dyn Fn(&str) -> io::Result<String>,
    notes: Notes,
    /// The mistakes of other files, which have lines of their own.
    documents: String,
}

impl Reader<'_> {
    fn plan(&mut self, root: &Spot<'_>, flags: &Flags) -> Option<Plan> {
        let mut fields = root.fields(&mut self.notes, &FIELDS)?;
        let whole = |reader: &mut Self, fields: &mut Fields<'_>, key, range| {
            fields.optional(key).and_then(|spot| spot.integer(&mut reader.notes, range))
        };
        let seed = whole(self, &mut fields, "seed", 0..=u64::MAX);
        let seed = flags.seed.or(seed).unwrap_or(0);
        let nodes = whole(self, &mut fields, "nodes", 1..=u64::from(NODES_MAX));
        let nodes = flags.nodes.or(nodes.and_then(|nodes| u8::try_from(nodes).ok()));
        let mut scene = Scene::draw(seed, nodes);
        // As the node file bounds it.
        if let Some(entries) = whole(self, &mut fields, "snapshot_after_entries", 8..=1_000_000) {
            scene.snapshot_after = entries;
        }
        if let Some(range) = self.range(&mut fields, "network", "delay") {
            scene.delay_ms = range;
        }
        if let Some(range) = self.range(&mut fields, "disk", "sync") {
            scene.sync_ms = range;
        }
        let own = fields.optional("gateway").map(|spot| self.gateway(&spot));
        let own = if flags.gateway.is_empty() { own } else { Some(flags.gateway.clone()) };
        let is_own = own.is_some();
        if let Some(own) = own {
            // What could not be read was noted; a drawn one would make all routes wrong.
            scene.gateway = own;
        }
        self.count_upstreams(&scene, root);
        if let Some(spot) = fields.optional("traffic") {
            let items = spot.items(&mut self.notes, CALLERS_MAX);
            let read = items.iter().enumerate().map(|(number, spot)| self.caller(spot, number, &scene));
            scene.callers = read.collect::<Vec<_>>().into_iter().flatten().collect();
        } else if is_own {
            let first = scene.gateway.first()?;
            scene.callers = traffic::draw(seed, scene.nodes, first);
        }
        let for_ms = fields.optional("for").and_then(|spot| spot.parse(&mut self.notes, time));
        let calm = fields.optional("calm");
        let calm_ms = calm.as_ref().and_then(|spot| spot.parse(&mut self.notes, time));
        let for_ms = flags.for_ms.or(for_ms);
        let weather = fields.optional("weather").map(|spot| self.weather(&spot, &scene, flags));
        let ends = |weather: &Vec<(Trouble, Spot<'_>)>| {
            weather.iter().map(|(trouble, _)| trouble.at_ms + trouble.for_ms).max().unwrap_or(0)
        };
        let calm_or = |for_ms: u64| calm_ms.unwrap_or(CALM_MS.min(for_ms / 3));
        // As long as the file's weather lasts, and then some calm.
        let for_ms = for_ms.unwrap_or_else(|| {
            let calm_ms = calm_or(FOR_MS);
            weather.as_ref().map_or(FOR_MS, |weather| FOR_MS.max(ends(weather) + calm_ms))
        });
        let calm_ms = match calm {
            Some(spot) if calm_or(for_ms) > for_ms => {
                spot.wrong(&mut self.notes, format!("no more than `for`, {}", moment::show(for_ms)));
                CALM_MS.min(for_ms / 3)
            }
            _ => calm_or(for_ms),
        };
        let stormy_ms = for_ms - calm_ms;
        let weather = match weather {
            Some(weather) => {
                for (trouble, spot) in &weather {
                    if trouble.at_ms + trouble.for_ms > stormy_ms {
                        let until = moment::show(stormy_ms);
                        let wanted = format!("a trouble that has ended by {until}, when the calm begins");
                        spot.wrong(&mut self.notes, wanted).help = Some(format!(
                            "`for` is {}, of which the last {} are `calm`",
                            moment::show(for_ms),
                            moment::show(calm_ms)
                        ));
                    }
                }
                let mut weather: Vec<Trouble> = weather.into_iter().map(|(trouble, _)| trouble).collect();
                weather.sort_by_key(|trouble| trouble.at_ms);
                weather
            }
            None => Plan::weather(seed, &scene, stormy_ms, &flags.kinds),
        };
        let own = fields.optional("expect");
        let expect = match &flags.expect {
            Some((name, text)) => self.expectations(name, text, &scene, for_ms),
            None => {
                own.map(|spot| Expectation::list(&spot, &mut self.notes, &scene, for_ms)).unwrap_or_default()
            }
        };
        Some(Plan { seed, for_ms, calm_ms, scene, weather, expect })
    }

    /// Those of a file with nothing else.
    fn expectations(&mut self, name: &str, text: &str, scene: &Scene, for_ms: u64) -> Vec<Expectation> {
        let mut notes = Notes::default();
        let tree = match tree::read(text) {
            Ok(tree) => tree,
            Err(mistake) => {
                self.documents.push_str(&render(name, text, &[mistake]));
                return Vec::new();
            }
        };
        let list = Spot::root(&tree)
            .fields(&mut notes, &["expect"])
            .and_then(|mut fields| fields.required(&mut notes, "expect"))
            .map(|spot| Expectation::list(&spot, &mut notes, scene, for_ms));
        match conclude(notes.mistakes, list) {
            Ok(read) => read.value,
            Err(mistakes) => {
                self.documents.push_str(&render(name, text, &mistakes));
                Vec::new()
            }
        }
    }

    /// `{delay: 1ms to 4ms}`.
    fn range(&mut self, fields: &mut Fields<'_>, section: &str, key: &'static str) -> Option<(u64, u64)> {
        let mut inner = fields.optional(section)?.fields(&mut self.notes, &[key])?;
        inner.optional(key)?.parse(&mut self.notes, |text| {
            let (low, high) = text.split_once(" to ").unwrap_or((text, text));
            let both = moment::parse(low.trim()).ok().zip(moment::parse(high.trim()).ok());
            both.filter(|(low, high)| low <= high && *high <= DELAY_MS_MAX)
                .ok_or(Wanted::from("the shortest and the longest time, up to 10s, such as `1ms to 4ms`"))
        })
    }

    fn gateway(&mut self, spot: &Spot<'_>) -> Vec<Edition> {
        let items = spot.items(&mut self.notes, EDITIONS_MAX);
        if items.is_empty() && matches!(spot.value(), Value::List(_)) {
            spot.wrong(&mut self.notes, "at least one document").help =
                Some("leave `gateway` out for documents that are drawn from the seed".to_owned());
        }
        let read: Vec<Option<Edition>> = items.iter().map(|item| self.edition(item)).collect();
        read.into_iter().flatten().collect()
    }

    /// A document's text, or `{file: gateway.yaml}`.
    fn edition(&mut self, spot: &Spot<'_>) -> Option<Edition> {
        let parsed = match spot.value() {
            Value::Text(text) => Edition::parse(&format!("{}: {}", self.name, spot.path), text),
            Value::Map(_) => {
                let file = spot.fields(&mut self.notes, &["file"])?.required(&mut self.notes, "file")?;
                let name = file.parse(&mut self.notes, |text| Ok::<_, Wanted>(text.to_owned()))?;
                match (self.open)(&name) {
                    Ok(text) => Edition::parse(&name, &text),
                    Err(error) => {
                        file.wrong(&mut self.notes, "a file that can be read").help = Some(error.to_string());
                        return None;
                    }
                }
            }
            _ => {
                spot.wrong(&mut self.notes, "a gateway document as a text, or `{file: gateway.yaml}`");
                return None;
            }
        };
        parsed.map_err(|mistakes| self.documents.push_str(&mistakes)).ok()
    }

    fn count_upstreams(&mut self, scene: &Scene, root: &Spot<'_>) {
        let count = scene.upstreams().len();
        if count > UPSTREAMS_MAX {
            root.wrong_key(
                &mut self.notes,
                format!("{count} upstreams in all editions"),
                format!("at most {UPSTREAMS_MAX}, for which there are hosts"),
            )
            .help = Some("let routes that may share one do so".to_owned());
        }
    }

    fn caller(&mut self, spot: &Spot<'_>, number: usize, scene: &Scene) -> Option<Caller> {
        let notes = &mut self.notes;
        let mut fields = spot.fields(notes, &CALLER_FIELDS)?;
        // Where no document could be read, no name is wrong.
        let route = |text: &str| match scene.gateway.is_empty() {
            true => Ok(text.to_owned()),
            false => edition::known_route(&scene.gateway, text),
        };
        let route = fields.required(notes, "route").and_then(|spot| spot.parse(notes, route));
        let tenant = fields.or(notes, "tenant", Caller::tenant(number), |notes, spot| {
            spot.parse(notes, |text| TenantId::parse(text).map(|id| id.to_string()))
        });
        let client = fields.optional("client").and_then(|spot| spot.parse(notes, client));
        let rate = fields.required(notes, "rate").and_then(|spot| spot.parse(notes, rate));
        let at_once = fields.or(notes, "at_once", 1, |notes, spot| spot.integer(notes, 1..=AT_ONCE_MAX));
        let spread = fields.or(notes, "spread", Spread::Turns, |notes, spot| spot.parse(notes, str::parse));
        let token = fields.or(notes, "token", Token::Good, |notes, spot| spot.word(notes, &Token::WORDS));
        let protocol =
            fields.or(notes, "protocol", Protocol::Http1, |notes, spot| spot.word(notes, &Protocol::WORDS));
        let method = fields.optional("method");
        let route = route?;
        let first = edition::first_with(&scene.gateway, &route).map(|(edition, _)| edition)?;
        let reach = |method: Option<&str>| first.target(&route, method).expect("this edition has the route");
        let target = match method {
            Some(spot) => spot.parse(notes, |method| reach(Some(method)))?,
            None => match reach(None) {
                Ok(target) => target,
                Err(wanted) => {
                    spot.wrong(notes, wanted.wanted);
                    return None;
                }
            },
        };
        let (rate, method) = (rate?, target.method);
        Some(Caller { route, tenant, client, rate, at_once, spread, method, token, protocol })
    }

    /// The file's troubles of the kinds that are wanted, each with its place.
    fn weather<'s>(&mut self, spot: &Spot<'s>, scene: &Scene, flags: &Flags) -> Vec<(Trouble, Spot<'s>)> {
        let mut troubles: Vec<(Trouble, Spot<'s>)> = Vec::new();
        for spot in spot.items(&mut self.notes, TROUBLES_MAX) {
            let Some(trouble) = spot.parse(&mut self.notes, str::parse::<Trouble>) else { continue };
            if flags.kinds.contains(&trouble.kind.name()) {
                troubles.push((trouble, spot));
            }
        }
        let grows = |(trouble, _): &(Trouble, _)| matches!(trouble.kind, Kind::Join | Kind::Replace { .. });
        let nodes = if troubles.iter().any(grows) { NODES_MAX } else { scene.nodes };
        let upstreams = scene.upstreams();
        for (trouble, spot) in &troubles {
            if let Some(stranger) = trouble.kind.nodes().into_iter().find(|number| *number > nodes) {
                let wanted = format!("a node that there is: node-1 to node-{nodes}");
                spot.wrong(&mut self.notes, wanted).help = Some(format!("there is no node-{stranger}"));
            }
            match &trouble.kind {
                Kind::Upstream { name, .. } if !upstreams.is_empty() && !upstreams.contains(name) => {
                    let help = config::spot::nearest(name, upstreams.iter().map(String::as_str));
                    let wanted = format!("one of the upstreams {}", upstreams.join(", "));
                    spot.wrong(&mut self.notes, wanted).help = help;
                }
                Kind::Edition if scene.gateway.len() == 1 => {
                    spot.wrong(&mut self.notes, "a second gateway document, which this would apply");
                }
                _ => {}
            }
        }
        troubles
    }
}

fn time(text: &str) -> Result<u64, Wanted> {
    let time = moment::parse(text).ok().filter(|ms| *ms <= FOR_MS_MAX);
    time.ok_or_else(|| format!("{}, at most a day", moment::RULE).as_str().into())
}

fn client(text: &str) -> Result<String, Wanted> {
    let fits = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("1 to 128 bytes without control characters".into()) }
}

fn rate(text: &str) -> Result<Rate, Wanted> {
    let wanted =
        || Wanted::from(format!("a rate such as 800/s, 5/min or 1/25ms, at most {PER_S_MAX}/s").as_str());
    let rate = Rate::parse(text).map_err(|_| wanted())?;
    let most = u128::from(PER_S_MAX) * u128::from(rate.per_ns);
    if u128::from(rate.tokens) * 1_000_000_000 <= most { Ok(rate) } else { Err(wanted()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "upstreams: {db: {endpoints: [\"http://10.0.0.1:80\"]}}\nquotas: {all: {key: all, limit: 5/s}}\n\
         routes: [{name: orders, match: {path: /orders, methods: [GET]}, upstream: db, access: public, quotas: [all]}]\n";

    fn read_as(text: &str, flags: &Flags) -> Result<Plan, String> {
        let open = |name: &str| match name {
            "gateway.yaml" => Ok(GATEWAY.to_owned()),
            "broken.yaml" => Ok(GATEWAY.replace("db,", "bd,")),
            other => Err(io::Error::other(format!("{other} is not there"))),
        };
        read("plan.yaml", text, flags, &open)
    }

    fn plan(text: &str) -> Plan {
        read_as(text, &Flags::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    #[test]
    fn what_is_left_out_is_drawn_from_the_seed_and_flags_stand_over_the_file() {
        assert_eq!(plan("seed: 7"), Plan::draw(7, None, 30_000, &NAMES));
        let flags = Flags { seed: Some(7), nodes: Some(5), for_ms: Some(9_000), ..Flags::default() };
        let read = read_as("{seed: 1, nodes: 1, for: 1m}", &flags);
        assert_eq!(read, Ok(Plan::draw(7, Some(5), 9_000, &NAMES)));
        let weather = "weather: [at 20s kill leader for 1s, at 5s join]";
        let flags = Flags { kinds: vec!["join"], ..Flags::default() };
        let both = plan(weather);
        assert_eq!(both.weather.iter().map(|it| it.at_ms).collect::<Vec<_>>(), [5_000, 20_000]);
        assert_eq!(read_as(weather, &flags).map(|plan| plan.weather.len()), Ok(1));
        assert_eq!(plan("weather: [at 40s kill leader for 10s]").for_ms, 59_000, "and 9 s of calm");
    }

    #[test]
    fn a_gateway_document_brings_its_own_routes_and_callers() {
        let drawn = plan("{nodes: 3, gateway: [{file: gateway.yaml}], weather: []}");
        assert!(!drawn.scene.callers.is_empty());
        assert!(drawn.scene.callers.iter().all(|caller| caller.route == "orders"));
        assert_eq!(Plan::parse(&drawn.text()), Ok(drawn), "it is part of the plan from then on");
        let own = "gateway: [{file: gateway.yaml}]\ntraffic: [{route: orders, rate: 800/s, spread: skewed}]";
        let callers = plan(own).scene.callers;
        assert_eq!((callers.len(), callers[0].method.as_str()), (1, "GET"));
        assert_eq!((callers[0].tenant.as_str(), callers[0].at_once), ("tenant-0", 1));
    }

    #[test]
    fn all_mistakes_are_reported_at_once_each_in_its_place() {
        let text = "\
seed: -1
calm: 40s
for: 30s
nodes: 3
netwrk: {delay: 1ms}
disk: {sync: 4ms to 1ms}
gateway:
  - {file: gateway.yaml}
  - {file: broken.yaml}
  - {file: missing.yaml}
traffic:
  - {route: ordres, tenant: acme, rate: 800/s}
  - {route: orders, rate: 20000/s, spread: to node-8, method: POST, token: stale}
weather:
  - at 10s isolat leader for 5s
  - at 10s pause node-4 for 8s
  - at 1s upstream dd hangs for 1s
";
        let found = read_as(text, &Flags::default()).expect_err("it is full of mistakes");
        let expected = [
            "plan.yaml:1:7: error: seed: found -1, wanted a whole number from 0 to",
            "plan.yaml:2:7: error: calm: found \"40s\", wanted no more than `for`, 30s",
            "plan.yaml:5:1: error: netwrk: found the unknown key \"netwrk\"",
            "  help: did you mean `network`?",
            "plan.yaml:6:14: error: disk.sync: found \"4ms to 1ms\", wanted the shortest and the longest time",
            "plan.yaml:10:12: error: gateway[2].file: found \"missing.yaml\", wanted a file that can be read",
            "  help: missing.yaml is not there",
            "plan.yaml:12:13: error: traffic[0].route: found \"ordres\", wanted the name of a route: orders",
            "  help: did you mean `orders`?",
            "plan.yaml:13:27: error: traffic[1].rate: found \"20000/s\", wanted a rate such as",
            "plan.yaml:13:44: error: traffic[1].spread: found \"to node-8\", wanted `in turn`",
            "plan.yaml:13:63: error: traffic[1].method: found \"POST\", wanted a method of route orders: GET",
            "plan.yaml:13:76: error: traffic[1].token: found \"stale\", wanted one of good, none, forged, expired",
            "plan.yaml:15:5: error: weather[0]: found \"at 10s isolat leader for 5s\", wanted after `at TIME` one of",
            "  help: did you mean `isolate`?",
            "plan.yaml:16:5: error: weather[1]: found \"at 10s pause node-4 for 8s\", wanted a node that there is: node-1 to node-3",
            "plan.yaml:17:5: error: weather[2]: found \"at 1s upstream dd hangs for 1s\", wanted one of the upstreams db",
            "broken.yaml:3:75: error: routes[0].upstream: found \"bd\", wanted the name of an upstream",
        ];
        for line in expected {
            assert!(found.contains(line), "no {line:?} in\n{found}");
        }
    }

    #[test]
    fn expectations_are_read_from_the_plan_or_from_a_file_of_their_own() {
        let own =
            plan("{nodes: 3, expect: [{admitted: at least 5%, tenant: tenant-1}, {refused: 0, after: 2s}]}");
        assert_eq!(own.expect.len(), 2);
        assert_eq!(Plan::parse(&own.text()), Ok(own.clone()));
        let file = |text: &str| {
            let flags =
                Flags { expect: Some(("expect.yaml".to_owned(), text.to_owned())), ..Flags::default() };
            read_as("{nodes: 3, expect: [{recovery: at most 5s}]}", &flags)
        };
        let other = file(
            "expect: [{utilisation: at least 98%, quota: lobby}, {latency: at most 1s, percentile: 50}]",
        );
        assert_eq!(other.map(|plan| plan.expect.len()), Ok(2));
        let found = file(
            "expect:\n- {admited: 5}\n- {admitted: 5, refused: 3}\n- {admitted: 5s}\n- {recovery: at most 5s, tenant: tenant-1}\n\
             - {served: 100%, tenant: tenant-one, route: ordres, before: 31s}\n- {utilisation: at least 98%}\n- {refused: 0, after: 9s, before: 8s}\n\
             - {utilisation: 5%, quota: per-tenant}\n- {served: 5, tenant: tenant-1, route: orders}\n",
        )
        .expect_err("it is full of mistakes");
        let expected = [
            "expect.yaml:2:4: error: expect[0].admited: found the unknown key \"admited\"",
            "expect.yaml:3:3: error: expect[1]: found a map, wanted one of admitted, served",
            "expect.yaml:4:14: error: expect[2].admitted: found \"5s\", wanted requests, or a percentage",
            "expect.yaml:5:26: error: expect[3].tenant: found `tenant`, wanted no `tenant` beside `recovery`",
            "expect.yaml:6:26: error: expect[4].tenant: found \"tenant-one\", wanted the tenant of a caller",
            "expect.yaml:6:45: error: expect[4].route: found \"ordres\", wanted the name of a route",
            "expect.yaml:6:61: error: expect[4].before: found \"31s\", wanted a time from 1ms to 30s, the end of the run",
            "expect.yaml:7:3: error: expect[5].quota: found nothing, wanted a value for `quota`",
            "expect.yaml:8:35: error: expect[6].before: found \"8s\", wanted a time from 9.001s to 30s, the end of the run",
            "expect.yaml:9:3: error: expect[7]: found a map, wanted a `tenant`: the quota counts by tenant",
            "expect.yaml:10:3: error: expect[8]: found a map, wanted tenant, client and route of a caller; none has all of these",
        ];
        for line in expected {
            assert!(found.contains(line), "no {line:?} in\n{found}");
        }
    }

    #[test]
    fn a_trouble_that_lasts_into_the_calm_and_an_edition_without_a_document_are_found() {
        let found = read_as("{for: 20s, weather: [at 10s kill leader for 5s]}", &Flags::default());
        let found = found.expect_err("the calm begins at 13.334s");
        assert!(
            found.contains("wanted a trouble that has ended by 13.334s, when the calm begins"),
            "{found}"
        );
        let found = read_as("{gateway: [{file: gateway.yaml}], weather: [at 1s edition]}", &Flags::default());
        assert!(found.expect_err("there is one alone").contains("a second gateway document"));
    }
}
