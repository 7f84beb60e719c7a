//! What answers say of a version's life, and when it is over. Pure; the time is an argument.
//!
//! `Deprecation` is that of RFC 9745, `Sunset` that of RFC 8594; so are the relations of `Link` that say where to read about
//! them. `successor-version` is of RFC 5829.

use std::time::{Duration, SystemTime};

use cluster::world::UnixMs;
use config::ids::VersionName;
use config::lifecycle::Lifecycle;
use config::units::UnixS;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// A version's life, compiled.
#[derive(Debug)]
pub struct LifecycleRule {
    /// As metrics call it.
    pub version: VersionName,
    /// When it ends.
    sunset: Option<UnixMs>,
    /// Each the only one of its name.
    set: Box<[(HeaderName, HeaderValue)]>,
    link: Option<HeaderValue>,
}

impl LifecycleRule {
    /// # Errors
    /// What is wrong, if an address is none.
    pub fn compile(lifecycle: &Lifecycle) -> Result<Self, String> {
        let Lifecycle { version, deprecated, sunset, info, successor } = lifecycle;
        let value = |text: String| {
            HeaderValue::try_from(&text).map_err(|_| format!("found {text:?}, wanted a field value"))
        };
        let mut set = Vec::new();
        if let Some(deprecated) = deprecated {
            set.push((DEPRECATION, value(format!("@{}", u64::from(*deprecated)))?));
        }
        if let Some(sunset) = sunset {
            set.push((SUNSET, value(date(*sunset))?));
        }
        let links = [
            (info.as_ref().filter(|_| deprecated.is_some()), "deprecation"),
            (info.as_ref().filter(|_| sunset.is_some()), "sunset"),
            (successor.as_ref(), "successor-version"),
        ];
        let links = links.into_iter().filter_map(|(address, relation)| Some((address?, relation)));
        let links: Vec<String> =
            links.map(|(address, relation)| format!("<{address}>; rel=\"{relation}\"")).collect();
        let link = if links.is_empty() { None } else { Some(value(links.join(", "))?) };
        let sunset = sunset.map(|sunset| UnixMs(u64::from(sunset) * 1000));
        Ok(Self { version: version.clone(), sunset, set: set.into(), link })
    }

    /// Whether the version has ended.
    pub fn is_over(&self, now: UnixMs) -> bool {
        self.sunset.is_some_and(|sunset| now >= sunset)
    }

    /// Tells it to whoever reads an answer. An upstream's links stay, what it says of the same is replaced.
    pub fn mark(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        if let Some(link) = &self.link {
            headers.append(header::LINK, link.clone());
        }
    }
}

/// As HTTP writes it.
fn date(instant: UnixS) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(instant.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifecycle(deprecated: Option<&str>, sunset: Option<&str>) -> Lifecycle {
        let instant = |text: Option<&str>| text.map(|text| UnixS::parse(text).expect("an instant"));
        Lifecycle {
            version: VersionName::parse("v1").expect("a name"),
            deprecated: instant(deprecated),
            sunset: instant(sunset),
            info: Some("https://docs.example/v1".into()),
            successor: Some("https://api.example/v2".into()),
        }
    }

    fn marked(lifecycle: &Lifecycle) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("sunset", HeaderValue::from_static("an upstream's"));
        headers.insert("link", HeaderValue::from_static("</a>; rel=next"));
        LifecycleRule::compile(lifecycle).expect("good").mark(&mut headers);
        headers
    }

    #[test]
    fn an_answer_tells_of_the_end_and_of_what_comes_then() {
        let headers = marked(&lifecycle(Some("2026-01-01"), Some("2026-12-31T12:00:00Z")));
        assert_eq!(headers["deprecation"], "@1767225600");
        assert_eq!(headers["sunset"], "Thu, 31 Dec 2026 12:00:00 GMT");
        let links: Vec<_> = headers.get_all("link").iter().collect();
        let ours = "<https://docs.example/v1>; rel=\"deprecation\", <https://docs.example/v1>; rel=\"sunset\", \
                    <https://api.example/v2>; rel=\"successor-version\"";
        assert_eq!(links, ["</a>; rel=next", ours]);
        // and what has no end says nothing of one
        let headers = marked(&lifecycle(None, None));
        assert_eq!(
            (headers.get("deprecation"), &headers["sunset"]),
            (None, &HeaderValue::from_static("an upstream's"))
        );
        assert!(
            headers
                .get_all("link")
                .iter()
                .any(|it| it == "<https://api.example/v2>; rel=\"successor-version\"")
        );
    }

    #[test]
    fn a_version_ends_at_its_sunset_and_not_before() {
        let rule = |sunset| LifecycleRule::compile(&lifecycle(Some("2026-01-01"), sunset)).expect("good");
        let ends = UnixMs(1_798_675_200_000);
        let with = rule(Some("2026-12-31"));
        assert!(!with.is_over(UnixMs(ends.0 - 1)) && with.is_over(ends) && with.is_over(UnixMs(u64::MAX)));
        assert!(!rule(None).is_over(UnixMs(u64::MAX)));
    }
}
