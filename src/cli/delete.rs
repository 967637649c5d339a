//! `amberfs delete`: points into the trash, with a plan first.
//!
//! What is deleted is what was shown. The log decides at the moment of writing, so a point that came to depend
//! on the others after the plan was shown makes the plan void, and a new one is shown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr, stdin};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::context::{Context, Opened};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, count, printable, size};
use super::points::kind;
use crate::base::Class;
use crate::chain::state::Dependents;
use crate::chain::weight::{Weight, weigh};
use crate::chain::{DeletionPlan, Point, SourceLog, SourceState};
use crate::format::PointId;
use crate::format::log::SourceRecord;
use crate::job::protocol::{self, Message};
use crate::view::Selector;
use crate::view::selector::Pick;

/// Delete points: they vanish from all listings and mounts, and stay in the trash until collected
///
/// Shows the plan first: each point, what depends on it, and the bytes that no other point holds. A point on
/// which others build is refused (11) unless --cascade or --rebase says what becomes of those. On a terminal
/// it asks; otherwise --yes is needed. `amberfs undelete` brings points back.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// The points: SOURCE followed by @TIME, %LABEL, #ID or ~N (~0 is the newest)
    #[arg(value_name = "SELECTOR", required = true)]
    selectors: Vec<OsString>,
    /// Delete as well what builds on them, directly or indirectly
    #[arg(long, conflicts_with = "rebase")]
    cascade: bool,
    /// Delete just these: what builds on them stays whole and counts as child of the nearest ancestor that stays
    #[arg(long)]
    rebase: bool,
    /// Show the plan, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// How often a plan is made anew because somebody else captures.
const PLANS_MAX: usize = 8;

impl DeleteArgs {
    fn mode(&self) -> Dependents {
        match (self.cascade, self.rebase) {
            (true, _) => Dependents::Cascade,
            (_, true) => Dependents::Keep,
            (false, false) => Dependents::Refuse,
        }
    }
}

/// Runs it.
///
/// # Errors
/// When there is no such point, others build on it, nobody agreed, or the log cannot be read or written.
pub fn run(args: &DeleteArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    let mut sources: BTreeMap<String, (SourceRecord, Vec<PointId>)> = BTreeMap::new();
    for selector in &args.selectors {
        let selector = point_selector(selector)?;
        // A number or a name means that point also when it is deleted already: given again, nothing else goes.
        let record = opened.source(&selector.source)?;
        let state = opened.log(&record).load()?;
        let called = selector.pick.ever(&state, context.env.now(), &TimeZone::system());
        let called = called.map_err(|error| Failure::from(error).during(format!("source {}", record.name)))?;
        let (record, point) = match called {
            Some(point) => (record, Arc::clone(point)),
            None => opened.resolve(&selector)?,
        };
        sources.entry(record.name.clone()).or_insert_with(|| (record, Vec::new())).1.push(point.id);
    }
    for (record, points) in sources.values() {
        Deleting { args, context, opened: &opened, record, points, log: opened.log(record) }.run()?;
    }
    Ok(Exit::Done)
}

/// A selector of one point as a whole. A source's name alone is none: it reads like the source.
pub(super) fn point_selector(text: &OsString) -> Result<Selector, Failure> {
    let selector = Selector::parse(text.as_encoded_bytes())?;
    if selector.path.is_some() {
        return Err(Failure::usage(format!("{text:?}: only points as a whole can be deleted"))
            .hint("leave out the colon and the path"));
    }
    if selector.pick == Pick::Newest {
        return Err(Failure::usage(format!("{text:?} names a source and none of its points"))
            .hint(format!("{0}~0 is its newest point; amberfs points {0} lists all", selector.source)));
    }
    Ok(selector)
}

/// The deletion of points of one source.
struct Deleting<'a> {
    args: &'a DeleteArgs,
    context: &'a Context,
    opened: &'a Opened,
    record: &'a SourceRecord,
    points: &'a [PointId],
    log: SourceLog,
}

impl Deleting<'_> {
    fn run(&self) -> Result<(), Failure> {
        for _ in 0..PLANS_MAX {
            let state = self.log.refresh()?;
            let plan = DeletionPlan::plan(&state, self.points, self.args.mode())?;
            let doomed: Vec<PointId> = plan.points().iter().map(|point| point.id).collect();
            let reader = self.opened.repo.reader(self.record.id);
            let weight = weigh(&reader, &state, &doomed);
            if !self.context.global.json && !self.context.global.quiet {
                self.show(&state, &plan, &weight)?;
            } else if let Err(error) = &weight {
                tracing::warn!(%error, "what only these points hold cannot be told");
            }
            if plan.is_refused() {
                return Err(self.refused(&plan));
            }
            if self.args.dry_run {
                return self.told(&plan, weight.ok());
            }
            self.agree(&plan)?;
            match plan.carry_out(&self.log) {
                Ok(_) => return self.told(&plan, weight.ok()),
                Err(error) if DeletionPlan::is_outdated_by(&error) => {
                    let text = format!("a point of {} was captured meanwhile: {error}", self.record.name);
                    drop(writeln!(stderr(), "amberfs: {}", printable(text.as_bytes())));
                }
                Err(error) => return Err(Failure::from(error).during(format!("source {}", self.record.name))),
            }
        }
        Err(Failure::new(
            Class::Conflict,
            format!("{}: points that depend on these keep appearing; nothing was deleted", self.record.name),
        )
        .hint("try again when nothing captures this source"))
    }

    fn refused(&self, plan: &DeletionPlan) -> Failure {
        let named: Vec<String> = plan.named.iter().map(|point| format!("#{}", point.id)).collect();
        let text = format!(
            "{}: {} depend on {}; nothing was deleted",
            self.record.name,
            points(plan.dependents.len()),
            named.join(", ")
        );
        Failure::new(Class::Conflict, text).hint(
            "--cascade deletes them as well; --rebase deletes just the point, and they stay whole: each point is \
             complete in itself",
        )
    }

    /// Whether somebody said yes.
    fn agree(&self, plan: &DeletionPlan) -> Result<(), Failure> {
        if self.args.yes || plan.points().is_empty() {
            return Ok(());
        }
        if self.context.global.json || !stdin().is_terminal() || !stderr().is_terminal() {
            return Err(Failure::usage(format!(
                "{}: {} would be deleted, and there is nobody to ask",
                self.record.name,
                points(plan.points().len())
            ))
            .hint("--yes deletes without asking, --dry-run only shows the plan"));
        }
        let mut err = stderr();
        let question = format!("delete {} of {}? [y/N] ", points(plan.points().len()), self.record.name);
        let mut answer = String::new();
        (err.write_all(question.as_bytes()).and_then(|()| err.flush()))
            .and_then(|()| stdin().read_line(&mut answer).map(drop))
            .map_err(|error| Failure::io("ask", &error))?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new(Class::Cancelled, format!("{}: nothing was deleted", self.record.name))),
        }
    }

    fn show(
        &self,
        state: &SourceState,
        plan: &DeletionPlan,
        weight: &Result<Weight, crate::repo::RepoError>,
    ) -> Result<(), Failure> {
        let mut rows: Vec<(PointId, Vec<String>)> =
            plan.named.iter().map(|point| (point.id, self.row(point, "delete".to_owned()))).collect();
        let gone: Vec<PointId> = plan.points().iter().map(|point| point.id).collect();
        for point in &plan.dependents {
            let parent = state.parent(point);
            let of = parent.map_or_else(String::new, |parent| format!("depends on #{}", parent.id));
            let what = match plan.mode {
                Dependents::Refuse => of,
                Dependents::Cascade => format!("delete: {of}"),
                Dependents::Keep if parent.is_some_and(|parent| gone.contains(&parent.id)) => {
                    let heir = state.lineage(point.id).skip(1).find(|above| !gone.contains(&above.id));
                    heir.map_or_else(
                        || "stays, first of its line".to_owned(),
                        |heir| format!("stays, child of #{}", heir.id),
                    )
                }
                // Its parent stays, and so it is of no concern.
                Dependents::Keep => continue,
            };
            rows.push((point.id, self.row(point, what)));
        }
        rows.sort_by_key(|(id, _)| *id);
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
        let mut out = Output::open();
        out.table(&["SOURCE", "ID>", "POINT", "KIND", "FILES>", "SIZE>", "LABELS", "PLAN"], &rows)?;
        out.line(match weight {
            Ok(weight) => format!("{} are held by no other point", size(weight.bytes())),
            Err(error) => {
                format!("what is held by no other point cannot be told: {}", printable(error.to_string().as_bytes()))
            }
        })?;
        out.close()
    }

    fn row(&self, point: &Arc<Point>, plan: String) -> Vec<String> {
        let stats = &point.commit.stats;
        let labels: Vec<String> = point.commit.labels.iter().map(|label| printable(label.as_bytes())).collect();
        vec![
            self.record.name.clone(),
            format!("#{}", point.id),
            point.name().to_owned(),
            kind(point).to_owned(),
            count(stats.files),
            size(stats.bytes),
            labels.join(", "),
            plan,
        ]
    }

    /// Says what was done, or would have been.
    fn told(&self, plan: &DeletionPlan, weight: Option<Weight>) -> Result<(), Failure> {
        let gone = plan.points();
        let mut out = Output::open();
        if self.context.global.json {
            out.json(&Message::Deleted(protocol::Deleted {
                source: self.record.name.clone(),
                points: gone.iter().map(|point| point.name().to_owned()).collect(),
                ids: gone.iter().map(|point| point.id.0).collect(),
                dependents: plan.dependents.iter().map(|point| point.name().to_owned()).collect(),
                bytes: weight.map(|weight| weight.bytes()),
                dry_run: self.args.dry_run,
            }))?;
        } else if !self.context.global.quiet && !self.args.dry_run {
            let ids: Vec<String> = gone.iter().map(|point| format!("{}#{}", self.record.name, point.id)).collect();
            if ids.is_empty() {
                out.line(format!("{}: all of that is deleted already", self.record.name))?;
            } else {
                out.line(format!("deleted {} of {}", points(gone.len()), self.record.name))?;
                out.line(format!("until it is collected, this undoes it: amberfs undelete {}", ids.join(" ")))?;
            }
        }
        out.close()
    }
}

/// `1 point`, `2 points`.
pub(super) fn points(number: usize) -> String {
    if number == 1 { "1 point".to_owned() } else { format!("{} points", count(number as u64)) }
}
