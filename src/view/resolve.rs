//! Which point a selector means, given what a source's log says.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::moment::{MomentError, Target};
use super::selector::Pick;
use crate::base::suggest::did_you_mean;
use crate::base::{Class, Classed, Instant};
use crate::chain::{Point, SourceState};
use crate::format::PointId;

/// A selector that means no point of its source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nothing was captured yet.
    #[error("it has no point yet")]
    Empty,
    /// All its points are in the trash.
    #[error("all its points are deleted; `amberfs points --trash` lists them")]
    AllDeleted,
    /// The point is in the trash.
    #[error("its point #{id} {name} is deleted; `amberfs undelete` brings it back")]
    Deleted {
        /// Its number.
        id: PointId,
        /// Its name.
        name: String,
    },
    /// No point has that name.
    #[error("it has no point {name}; the newest is {newest}")]
    NoName {
        /// The name.
        name: String,
        /// The newest point's name.
        newest: String,
    },
    /// No point has that label.
    #[error("no point has the label {label:?}{suggestion}")]
    NoLabel {
        /// The label.
        label: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
    },
    /// No point has that number.
    #[error("it has no point #{id}; `amberfs points` shows the numbers")]
    NoId {
        /// The number.
        id: PointId,
    },
    /// There are fewer points.
    #[error("it has {points} points, so none is {back} before the newest")]
    TooFarBack {
        /// How far back was asked for.
        back: u64,
        /// How many there are.
        points: usize,
    },
    /// Everything was captured later.
    #[error("nothing was captured by {moment}; the first point is {first}")]
    TooEarly {
        /// The time, as it was written.
        moment: String,
        /// The oldest point's name.
        first: String,
    },
    /// The time is beyond what can be counted.
    #[error(transparent)]
    Moment(#[from] MomentError),
}

impl Classed for ResolveError {
    fn class(&self) -> Class {
        match self {
            ResolveError::Moment(error) => error.class(),
            ResolveError::Empty
            | ResolveError::AllDeleted
            | ResolveError::Deleted { .. }
            | ResolveError::NoName { .. }
            | ResolveError::NoLabel { .. }
            | ResolveError::NoId { .. }
            | ResolveError::TooFarBack { .. }
            | ResolveError::TooEarly { .. } => Class::NotFound,
        }
    }
}

impl Pick {
    /// The point that is meant.
    ///
    /// # Errors
    /// [`ResolveError`] says which points there are instead.
    pub fn resolve<'a>(
        &self,
        source: &'a SourceState,
        now: Instant,
        zone: &TimeZone,
    ) -> Result<&'a Arc<Point>, ResolveError> {
        let none = || if source.committed().is_empty() { ResolveError::Empty } else { ResolveError::AllDeleted };
        let newest = source.newest().ok_or_else(none)?;
        match self {
            Pick::Newest => Ok(newest),
            Pick::Back(back) => before_newest(source, *back),
            Pick::Id(id) => match source.ever(*id) {
                Some(point) if source.is_deleted(point.id) => {
                    Err(ResolveError::Deleted { id: *id, name: point.name().to_owned() })
                }
                point => point.ok_or(ResolveError::NoId { id: *id }),
            },
            Pick::Label(label) => source.by_label(label).ok_or_else(|| ResolveError::NoLabel {
                label: label.clone(),
                suggestion: did_you_mean(label, source.labels().map(|(label, _)| label)),
            }),
            Pick::At(moment) => {
                let at = |instant| {
                    source.at(instant).ok_or_else(|| ResolveError::TooEarly {
                        moment: moment.to_string(),
                        first: source.points().first().unwrap_or(newest).name().to_owned(),
                    })
                };
                match moment.target(now, zone)? {
                    Target::Back(back) => before_newest(source, back),
                    Target::At(instant) => at(instant),
                    Target::Named(name, instant) => match (source.by_name(&name), instant) {
                        (Some(point), _) => Ok(point),
                        (None, Some(instant)) => at(instant),
                        (None, None) => Err(ResolveError::NoName { name, newest: newest.name().to_owned() }),
                    },
                }
            }
        }
    }

    /// The point that is called by its number or its name, were it in the trash; `None` where it is called otherwise.
    /// A name means the point of that name here, and never an older one.
    ///
    /// # Errors
    /// [`ResolveError`] when there never was such a point.
    pub fn ever<'a>(
        &self,
        source: &'a SourceState,
        now: Instant,
        zone: &TimeZone,
    ) -> Result<Option<&'a Arc<Point>>, ResolveError> {
        match self {
            Pick::Id(id) => source.ever(*id).ok_or(ResolveError::NoId { id: *id }).map(Some),
            Pick::At(moment) => match moment.target(now, zone)? {
                Target::Named(name, _) => match source.ever_by_name(&name) {
                    Some(point) => Ok(Some(point)),
                    None => {
                        let newest = source.newest().map_or("none", |point| point.name()).to_owned();
                        Err(ResolveError::NoName { name, newest })
                    }
                },
                Target::Back(_) | Target::At(_) => Ok(None),
            },
            Pick::Newest | Pick::Label(_) | Pick::Back(_) => Ok(None),
        }
    }
}

fn before_newest(source: &SourceState, back: u64) -> Result<&Arc<Point>, ResolveError> {
    let found = usize::try_from(back).ok().and_then(|back| source.before_newest(back));
    found.ok_or_else(|| ResolveError::TooFarBack { back, points: source.points().len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::testing::{commit, session, tell};
    use crate::format::ChainId;
    use crate::format::log::SourceBody;
    use crate::view::Selector;

    const DAY: i64 = 86_400;

    /// Three points, one a day from 1970-01-02 on; the second one is labelled.
    fn source() -> SourceState {
        let mut state = SourceState::default();
        tell(&mut state, SourceBody::OpenChain { chain: ChainId(0) }).unwrap();
        let mut parent = None;
        for day in 1..=3 {
            let mut commit = commit(session(1, u8::try_from(day).unwrap()), 0, parent, day * DAY);
            if day == 2 {
                commit.labels = vec!["before-upgrade".to_owned()];
            }
            parent = Some(tell(&mut state, SourceBody::Commit(Arc::new(commit))).unwrap());
        }
        state
    }

    fn resolve(text: &str) -> Result<String, ResolveError> {
        let state = source();
        let selector: Selector = text.parse().unwrap();
        let now = Instant::from_nanos(4 * DAY * 1_000_000_000);
        selector.pick.resolve(&state, now, &TimeZone::UTC).map(|point| point.name().to_owned())
    }

    #[test]
    fn what_is_deleted_is_found_by_number_and_name_only_and_never_mistaken_for_an_older_one() {
        let mut state = source();
        let zone = TimeZone::UTC;
        let now = Instant::from_nanos(10 * DAY * 1_000_000_000);
        let pick = |text: &str| text.parse::<Selector>().unwrap().pick;
        tell(&mut state, SourceBody::Delete { points: vec![PointId(4)] }).unwrap();
        let deleted = ResolveError::Deleted { id: PointId(4), name: "1970-01-04T00-00-00Z".to_owned() };
        assert_eq!(pick("home#4").resolve(&state, now, &zone).unwrap_err(), deleted);
        // For readers a time is a time; whoever deletes calls the point by its name.
        assert_eq!(pick("home@1970-01-04T00-00-00Z").resolve(&state, now, &zone).unwrap().id, PointId(3));
        for (text, found) in [
            ("home#4", Ok(Some(4))),
            ("home#3", Ok(Some(3))),
            ("home@1970-01-04T00-00-00Z", Ok(Some(4))),
            ("home@1970-01-04T00-00", Ok(None)),
            ("home@1970-01-05T00-00-00Z", Err(())),
            ("home#9", Err(())),
            ("home~1", Ok(None)),
            ("home%x", Ok(None)),
            ("home", Ok(None)),
        ] {
            let ever = pick(text).ever(&state, now, &zone);
            assert_eq!(ever.map(|point| point.map(|point| point.id.0)).map_err(drop), found, "{text}");
        }
        tell(&mut state, SourceBody::Delete { points: vec![PointId(2), PointId(3)] }).unwrap();
        assert_eq!(pick("home").resolve(&state, now, &zone).unwrap_err(), ResolveError::AllDeleted);
    }

    #[test]
    fn each_way_to_name_a_point_finds_it() {
        for (selector, day) in [
            ("home", 4),
            ("home~1", 3),
            ("home@latest~2", 2),
            ("home%before-upgrade", 3),
            ("home#2", 2),
            ("home@1970-01-03", 3),
            ("home@1970-01-03T00-00Z", 3),
            ("home@1970-01-02T23-59Z", 2),
            ("home@1970-01-03T00-00-00Z", 3),
            ("home@1970-01-03T00-00-01Z", 3),
            ("home@25h", 3),
            ("home@now", 4),
        ] {
            assert_eq!(resolve(selector).unwrap(), format!("1970-01-0{day}T00-00-00Z"), "{selector}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        for (selector, why) in [
            ("home~3", "3 points"),
            ("home#17", "#17"),
            ("home%before-upgrad", "did you mean \"before-upgrade\"?"),
            ("home@1969-12-31", "the first point is 1970-01-02T00-00-00Z"),
            ("home@1970-01-02T00-00-00Z+2", "the newest is 1970-01-04T00-00-00Z"),
        ] {
            let error = resolve(selector).unwrap_err();
            assert!(error.to_string().contains(why), "{selector}: {error}");
            assert_eq!(error.class(), Class::NotFound);
        }
        let empty = SourceState::default();
        let none = Pick::Newest.resolve(&empty, Instant::from_nanos(0), &TimeZone::UTC);
        assert_eq!(none.map(|_| ()), Err(ResolveError::Empty));
    }
}
