//! Random histories of a disk: whatever was written, captured, rolled back and deleted, every point that is shown
//! has the bytes that the disk had.
//!
//! The naive history is a list of byte vectors and of who was whose parent. A failing history prints its seed;
//! `AMBERFS_HISTORIES` sets how many are tried.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use amberfs::base::Env;
use amberfs::capture::Options;
use amberfs::chain::Point;
use amberfs::chain::state::source::{Dependents, SourceGoal};
use amberfs::format::PointId;
use amberfs::restore;
use amberfs::restore::disk::{DiskOptions, WantedDisk, restore_disk};
use amberfs::restore::rollback::{RollbackOptions, RollbackProgress, Rolled, SAFETY_LABEL, Unfinished, unfinished};
use amberfs::store::Store;
use amberfs::store::fault::{Fault, Faults};
use amberfs::verify;
use amberfs::view::MountView;

use super::{CELL, DiskWorld, cells, content, data, judged_by_qemu, shown};
use crate::history::{Dice, each, next_tick_in};
use crate::rollback::{plain, roll_back};
use crate::world::{self, later, names, node};

/// A point as it must be.
struct Kept {
    id: PointId,
    name: String,
    bytes: Vec<u8>,
    cell: u64,
    /// Its parent, by its place in the history.
    parent: Option<usize>,
    /// Which full point its chain begins with.
    chain: usize,
    deleted: bool,
}

struct History {
    world: DiskWorld,
    dice: Dice,
    kept: Vec<Kept>,
    /// The point that was captured last or rolled back to since.
    head: Option<usize>,
    cell: u64,
}

/// How often each kind of thing came up, so that a campaign that tries nothing fails.
#[derive(Debug, Default)]
struct Met {
    incrementals: u64,
    branches: u64,
    cascades: u64,
    kept_dependents: u64,
    undeleted: u64,
    limits: u64,
    judged: u64,
    rollbacks: u64,
    /// Rollbacks to another chain, and of a disk that was written to since its last point.
    elsewhere: u64,
    unsaved: u64,
    after_rollbacks: u64,
    /// Rollbacks that went on after a crash, and disks that were written to in between.
    resumed: u64,
    written_meanwhile: u64,
}

/// Bytes of the cells of a disk that nobody has said anything about.
const USUAL_CELL: u64 = 64 << 10;

impl History {
    fn new(seed: u64) -> (History, bool) {
        let mut dice = Dice(seed);
        let trusting = dice.roll(2) == 0;
        let env = if trusting { Env::seeded(seed, later()) } else { Env::system() };
        let world = DiskWorld::new(Store::memory(), env);
        world.file().set_len(dice.roll(30) * CELL + dice.roll(3) * dice.roll(CELL)).unwrap();
        let cell = [CELL, CELL, 4 * CELL][dice.roll(3) as usize];
        (History { world, dice, kept: Vec::new(), head: None, cell }, trusting)
    }

    /// One change of the image.
    fn write(&mut self) {
        let file = self.world.file();
        let size = file.metadata().unwrap().len();
        let mut at = self.dice.roll(size + 1);
        if self.dice.roll(2) == 0 {
            at = at / CELL * CELL;
        }
        let room = size - at;
        let length = [self.dice.roll(700), self.dice.roll(3 * CELL), CELL][self.dice.roll(3) as usize].min(room);
        match self.dice.roll(9) {
            0..=3 => file.write_all_at(&self.dice.bytes(length), at).unwrap(),
            // Zeros that are allocated, and the end of the disk.
            4 => file.write_all_at(&vec![0; usize::try_from(length).unwrap()], at).unwrap(),
            5 if length > 0 => {
                let range = ["-p", "-o", &at.to_string(), "-l", &length.to_string()].map(str::to_owned);
                assert!(Command::new("fallocate").args(range).arg(self.world.path()).status().unwrap().success());
            }
            // What stands elsewhere as well.
            6 => {
                let mut copied = vec![0; usize::try_from(length).unwrap()];
                file.read_exact_at(&mut copied, self.dice.roll(at + 1)).unwrap();
                file.write_all_at(&copied, at).unwrap();
            }
            7 => file.set_len(self.dice.roll(40) * CELL + self.dice.roll(2) * self.dice.roll(CELL)).unwrap(),
            _ => {}
        }
    }

    /// The nearest that is not deleted, from `at` upwards.
    fn living(&self, at: Option<usize>) -> Option<usize> {
        std::iter::successors(at, |at| self.kept[*at].parent).find(|at| !self.kept[*at].deleted)
    }

    fn capture(&mut self, met: &mut Met) {
        let bytes = std::fs::read(self.world.path()).unwrap();
        if self.dice.roll(9) == 0 {
            self.cell = [CELL, 4 * CELL, 16 * CELL][self.dice.roll(3) as usize];
        }
        let full = self.dice.roll(8) == 0;
        let most = [None, NonZeroU32::new(3)][usize::from(self.dice.roll(4) == 0)];
        let options = Options {
            full,
            chain_max_points: most,
            disk_chunk_bytes: Some(u32::try_from(self.cell).unwrap()),
            workers: Some(2),
            ..Options::default()
        };
        let head = self.living(self.head);
        let in_chain =
            |chain: usize| self.kept.iter().filter(|kept| !kept.deleted && kept.chain == chain).count() as u64;
        let is_full = |head: usize| most.is_some_and(|most| in_chain(self.kept[head].chain) >= u64::from(most.get()));
        let parent = head.filter(|head| !full && self.kept[*head].cell == self.cell && !is_full(*head));
        met.limits += u64::from(!full && head.is_some_and(is_full));
        met.incrementals += u64::from(parent.is_some());
        met.branches += u64::from(parent.is_some_and(|parent| self.kept.iter().any(|k| k.parent == Some(parent))));

        let outcome = self.world.capture(&options).unwrap();
        assert_eq!(outcome.parent.as_ref(), parent.map(|at| &self.kept[at].name), "{}", outcome.point.commit.reason);
        self.keep(&outcome.point, parent, bytes, self.cell);
        self.head = Some(self.kept.len() - 1);
    }

    /// A point was made of `bytes`.
    fn keep(&mut self, point: &Point, parent: Option<usize>, bytes: Vec<u8>, cell: u64) {
        let facts = point.commit.disk.clone().unwrap();
        assert_eq!((facts.bytes, u64::from(facts.chunk_bytes)), (bytes.len() as u64, cell));
        let chain = parent.map_or(self.kept.len(), |parent| self.kept[parent].chain);
        let (id, name) = (point.id, point.name().to_owned());
        self.kept.push(Kept { id, name, bytes, cell, parent, chain, deleted: false });
    }

    /// A point of which `is` holds, if there is any.
    fn any(&mut self, is: impl Fn(&Kept) -> bool) -> Option<usize> {
        let found: Vec<usize> = (0..self.kept.len()).filter(|at| is(&self.kept[*at])).collect();
        self.dice.pick(&found).copied()
    }

    /// The image goes back to a point, which is the head then; what it was before stays as a point, or is lost.
    fn roll_back(&mut self, met: &mut Met) {
        let Some(to) = self.any(|kept| !kept.deleted) else { return };
        let safe = self.dice.roll(4) != 0;
        let options = RollbackOptions {
            safety_point: safe,
            verify: self.dice.roll(2) == 0,
            workers: Some(2),
            ..plain(&self.world.dir.path().join("state"))
        };
        let (mut begun, mut written) = (None, false);
        let old = std::fs::read(self.world.path()).unwrap();
        if safe && self.dice.roll(2) == 0 {
            begun = self.interrupt(to, &options);
            let now = std::fs::read(self.world.path()).unwrap();
            (0..self.dice.roll(3)).for_each(|_| self.write());
            written = std::fs::read(self.world.path()).unwrap() != now;
            met.written_meanwhile += u64::from(begun.is_some() && written);
        }
        let before = std::fs::read(self.world.path()).unwrap();
        let inode = std::fs::metadata(self.world.path()).unwrap().ino();
        let head = self.living(self.head);
        met.rollbacks += 1;
        met.elsewhere += u64::from(head.is_some_and(|head| self.kept[head].chain != self.kept[to].chain));
        met.unsaved += u64::from(self.kept.iter().all(|kept| kept.bytes != before));
        let foreseen = self.rolled(to, &RollbackOptions { dry_run: true, ..options.clone() });
        assert!(std::fs::read(self.world.path()).unwrap() == before, "who only asks changes nothing");
        let rolled = self.rolled(to, &options);
        assert!(rolled.complete && rolled.not_started.is_none(), "{rolled:?}");
        assert!(if begun.is_some() { rolled.resumed || written } else { !rolled.resumed }, "{rolled:?}");
        let earlier = begun.iter().filter(|_| !rolled.resumed).filter_map(|note| note.safety.clone());
        assert_eq!(rolled.earlier, Vec::from_iter(earlier));
        met.resumed += u64::from(rolled.resumed);
        if rolled.resumed {
            // Then there was nothing that neither point has.
            let byte = |of: &[u8], at: usize| of.get(at).copied().unwrap_or(0);
            let then = &self.kept[to].bytes;
            let is_lost = |(at, now): (usize, &u8)| *now != byte(&old, at) && *now != byte(then, at);
            assert_eq!(before.iter().enumerate().position(is_lost), None, "what was written meanwhile is lost");
        }
        let (kept, disk) = (&self.kept[to], rolled.disk.unwrap());
        assert!(std::fs::read(self.world.path()).unwrap() == kept.bytes, "{}: rolled back to otherwise", kept.name);
        assert_eq!(std::fs::metadata(self.world.path()).unwrap().ino(), inode, "it is the same image");
        assert_eq!(disk.written, foreseen.disk.unwrap().written, "it does what it said it would");
        assert_eq!(disk.verified_bytes, if options.verify { kept.bytes.len() as u64 } else { 0 });
        // Cells that differ are written, zeros where there is something else, and nothing more.
        let mut image = before.clone();
        image.resize(kept.bytes.len(), 0);
        let (mut same, mut other, mut zeros) = (0, 0, false);
        for (then, now) in cells(&kept.bytes, kept.cell).into_iter().zip(image.chunks(kept.cell as usize)) {
            match then {
                Some(then) if then == now => same += then.len() as u64,
                Some(then) => other += then.len() as u64,
                None => zeros |= now.iter().any(|byte| *byte != 0),
            }
        }
        let written = disk.written;
        assert_eq!((written.kept_bytes, written.written_bytes, written.zeroed_bytes > 0), (same, other, zeros));

        let state = self.world.log.refresh().unwrap();
        assert_eq!(state.head().map(|head| head.id), Some(kept.id));
        assert_eq!(rolled.safety.is_some(), safe);
        if let Some(note) = begun.filter(|_| rolled.resumed) {
            assert_eq!(rolled.safety, note.safety);
            assert_eq!(state.committed().last().unwrap().id, self.kept.last().unwrap().id);
        } else if let Some(title) = rolled.safety {
            let point = state.committed().last().unwrap();
            assert_eq!(title, format!("vm#{}", point.id));
            assert!(point.has_label(SAFETY_LABEL));
            let parent = head.filter(|head| point.commit.parent == Some(self.kept[*head].id));
            assert_eq!(parent, head, "a safety point is incremental if there is a head: {}", point.commit.reason);
            let cell = head.map_or(USUAL_CELL, |head| self.kept[head].cell);
            self.keep(point, head, before, cell);
        }
        self.head = Some(to);
        if self.dice.roll(2) == 0 {
            // What is captured right behind it is that disk once more.
            self.cell = self.kept[to].cell;
            met.after_rollbacks += 1;
            self.capture(met);
            assert!(self.kept.last().unwrap().bytes == self.kept[to].bytes);
        }
    }

    /// A rollback that a crash of the store ends somewhere, or does not: what it has left to do.
    fn interrupt(&mut self, to: usize, options: &RollbackOptions) -> Option<Unfinished> {
        let before = std::fs::read(self.world.path()).unwrap();
        let head = self.living(self.head);
        let cell = head.map_or(USUAL_CELL, |head| self.kept[head].cell);
        let faults = Faults::new();
        let DiskWorld { env, repo, source, .. } = &self.world;
        let failing = world::open(faults.around(repo.store()), env.clone()).unwrap();
        let fault = [Fault::Before, Fault::After, Fault::Half][self.dice.roll(3) as usize];
        faults.crash_at(20 + self.dice.roll(30), fault);
        let place = (&*self.world.path(), self.kept[to].id);
        drop(roll_back((&failing, env), source, place, options, &RollbackProgress::new()));
        let note = unfinished(&options.state, repo.id(), source.id);
        let state = self.world.log.refresh().unwrap();
        let newest = state.committed().last().unwrap();
        if self.kept.iter().all(|kept| kept.id != newest.id) {
            self.keep(newest, head, before, cell);
        }
        let head = state.head().map(|head| head.id);
        self.head = self.kept.iter().position(|kept| Some(kept.id) == head);
        note.filter(|_| head != Some(self.kept[to].id))
    }

    fn rolled(&self, to: usize, options: &RollbackOptions) -> Rolled {
        let DiskWorld { env, repo, source, .. } = &self.world;
        let to = (&*self.world.path(), self.kept[to].id);
        roll_back((repo, env), source, to, options, &RollbackProgress::new()).unwrap()
    }

    /// Those that descend from `at` and are shown.
    fn dependents(&self, at: usize) -> BTreeSet<usize> {
        let descends =
            |of: usize| std::iter::successors(self.kept[of].parent, |up| self.kept[*up].parent).any(|up| up == at);
        (at + 1..self.kept.len()).filter(|of| descends(*of) && !self.kept[*of].deleted).collect()
    }

    fn delete(&mut self, met: &mut Met) {
        let Some(at) = self.any(|kept| !kept.deleted) else { return };
        let dependents = self.dependents(at);
        let how = [Dependents::Refuse, Dependents::Cascade, Dependents::Keep][self.dice.roll(3) as usize];
        let done = self.world.log.append(SourceGoal::Delete(vec![self.kept[at].id], how));
        match how {
            Dependents::Refuse if !dependents.is_empty() => return assert!(done.is_err()),
            Dependents::Refuse => {}
            Dependents::Cascade => {
                met.cascades += u64::from(!dependents.is_empty());
                dependents.iter().for_each(|at| self.kept[*at].deleted = true);
            }
            Dependents::Keep => met.kept_dependents += u64::from(!dependents.is_empty()),
        }
        done.unwrap();
        self.kept[at].deleted = true;
    }

    fn undelete(&mut self, met: &mut Met) {
        let Some(at) = self.any(|kept| kept.deleted) else { return };
        self.world.log.append(SourceGoal::Undelete(vec![self.kept[at].id])).unwrap();
        self.kept[at].deleted = false;
        met.undeleted += 1;
    }

    /// Holds everything that is shown against the memory of it.
    fn check(&mut self) {
        let view = self.world.mount();
        if self.kept.is_empty() {
            return;
        }
        let listed: Vec<String> = names(&view, node(&view, "vm/points"))
            .into_iter()
            .map(|(name, _)| String::from_utf8(name).unwrap())
            .collect();
        let expected: Vec<&String> = self.kept.iter().filter(|kept| !kept.deleted).map(|kept| &kept.name).collect();
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected);
        let pieces: [usize; 3] = [1 << 20, 70_001, 5000];
        for kept in self.kept.iter().filter(|kept| !kept.deleted) {
            let file = shown(&view, &kept.name, "disk.raw");
            let piece = pieces[self.dice.roll(3) as usize];
            assert!(content(&view, file, piece) == kept.bytes, "{}: other bytes", kept.name);
            let holes = cells(&kept.bytes, kept.cell);
            let mut known = BTreeSet::new();
            for (start, end) in data(&view, file) {
                assert!(start % kept.cell == 0 && (end % kept.cell == 0 || end == kept.bytes.len() as u64));
                known.extend(start / kept.cell..end.div_ceil(kept.cell));
            }
            let told: Vec<bool> = (0..holes.len() as u64).map(|cell| known.contains(&cell)).collect();
            assert_eq!(told, holes.iter().map(Option::is_some).collect::<Vec<_>>(), "{}: holes", kept.name);
            self.check_map(&view, kept);
        }
    }

    /// `map.json` covers the disk, and tells of each cell what a comparison with the parent's bytes does.
    fn check_map(&self, view: &MountView, kept: &Kept) {
        let text = content(view, shown(view, &kept.name, "map.json"), 3000);
        let map: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let (now, size) = (cells(&kept.bytes, kept.cell), kept.bytes.len() as u64);
        let before = kept.parent.map(|parent| cells(&self.kept[parent].bytes, kept.cell)).unwrap_or_default();
        assert_eq!((map["bytes"].as_u64(), map["granularity"].as_u64()), (Some(size), Some(kept.cell)));
        let mut at = 0;
        for extent in map["extents"].as_array().unwrap() {
            assert_eq!(extent["offset"], at);
            let end = at + extent["bytes"].as_u64().unwrap();
            for cell in at / kept.cell..end.div_ceil(kept.cell) {
                let cell = usize::try_from(cell).unwrap();
                let changed = now[cell] != before.get(cell).copied().flatten();
                let state = if now[cell].is_some() { "data" } else { "zero" };
                assert_eq!((&extent["state"], &extent["changed"]), (&state.into(), &changed.into()), "cell {cell}");
            }
            at = end;
        }
        assert_eq!(at, size, "{}", kept.name);
    }

    /// Restores a point and reads its qcow2 image.
    fn restore(&mut self, met: &mut Met) {
        let Some(at) = self.any(|kept| !kept.deleted) else { return };
        let kept = &self.kept[at];
        let state = self.world.log.refresh().unwrap();
        let disk = self.world.disk(state.point(kept.id).unwrap());
        let path = |name: &str| self.world.dir.path().join(name);
        let wanted = WantedDisk { disk: &disk, title: "vm" };
        let options = DiskOptions { verify: true, workers: Some(2), force: true, ..DiskOptions::default() };
        for name in ["out.raw", "out.qcow2"] {
            let outcome = restore_disk(&wanted, &path(name), &options, &restore::Progress::new()).unwrap();
            assert_eq!(outcome.bytes, kept.bytes.len() as u64);
        }
        assert!(std::fs::read(path("out.raw")).unwrap() == kept.bytes, "{}: restored otherwise", kept.name);
        let view = self.world.mount();
        let file = shown(&view, &kept.name, "disk.qcow2");
        let image = content(&view, file, [1 << 20, 9999][self.dice.roll(2) as usize]);
        assert!(std::fs::read(path("out.qcow2")).unwrap() == image, "{}: another image", kept.name);
        // Sparse as it says: what is no data is zeros.
        let mut at = 0;
        for (start, end) in data(&view, file).into_iter().chain([(image.len() as u64, 0)]) {
            assert!(image[at as usize..start as usize].iter().all(|byte| *byte == 0), "data in a hole at {at}");
            at = end;
        }
        if self.dice.roll(3) == 0 {
            judged_by_qemu(&path("out.qcow2"), &path("out.raw"));
            met.judged += 1;
        }
    }
}

fn history(seed: u64, met: &mut Met) {
    let (mut history, trusting) = History::new(seed);
    for _ in 0..5 + history.dice.roll(8) {
        if history.dice.roll(3) == 0 {
            (0..history.dice.roll(4)).for_each(|_| history.write());
        }
        match history.dice.roll(11) {
            0 | 1 => history.roll_back(met),
            2 | 3 => history.delete(met),
            4 => history.undelete(met),
            _ => {
                for _ in 0..history.dice.roll(9) {
                    history.write();
                }
                history.capture(met);
            }
        }
        history.check();
        if trusting {
            next_tick_in(history.world.dir.path());
        }
    }
    history.restore(met);
    let options = verify::Options { read_data: true, ..verify::Options::default() };
    let report = verify::verify(&history.world.reopened(), &options, &verify::Progress::new()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn every_point_of_any_disk_has_the_bytes_that_the_disk_had() {
    let mut met = Met::default();
    let histories = each(1, |seed| history(seed, &mut met));
    let Met { incrementals, branches, cascades, kept_dependents, undeleted, limits, judged, .. } = met;
    let Met { rollbacks, elsewhere, unsaved, after_rollbacks, resumed, written_meanwhile, .. } = met;
    let all = [incrementals, branches, cascades, kept_dependents, undeleted, limits, judged];
    let all = all.into_iter().chain([rollbacks, elsewhere, unsaved, after_rollbacks, resumed, written_meanwhile]);
    assert!(histories < 40 || all.into_iter().all(|times| times > 0), "too seldom to be tried: {met:?}");
}
