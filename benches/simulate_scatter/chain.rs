//! A tree of small files and the chain that holds it: chunks, their stored copies, frames; how a
//! capture groups and dedups under given rules, and what a walk of the newest point decodes.

use std::collections::VecDeque;

use crate::dice::Dice;

pub(crate) const NONE: u32 = u32::MAX;
pub(crate) const KIB: u32 = 1 << 10;
/// Larger chunks have frames of their own and cannot scatter.
pub(crate) const GROUPED_MAX: u32 = 128 * KIB;
/// A file of at most this many bytes stands in its entry.
pub(crate) const INLINE_MAX: u32 = 128;
/// A frame costs a local reader a read, a hash and a start of zstd: as much as decoding so many bytes.
pub(crate) const FRAME_OVERHEAD: u64 = 16 << 10;
/// Stored bytes of a pack.
pub(crate) const PACK_BYTES: u64 = 64 << 20;

/// Raw bytes for one stored, by raw bytes of the frame: measured with zstd 3 on the small files of /usr
/// (one file alone 2.00, grouped 64K 2.25, 128K 2.32, 256K 2.38, 1M 2.50).
pub(crate) fn ratio(raw: u64) -> f64 {
    const CURVE: [(f64, f64); 6] = [(10.0, 1.75), (12.6, 2.00), (16.0, 2.25), (17.0, 2.32), (18.0, 2.38), (20.0, 2.50)];
    let x = (raw.max(1) as f64).log2();
    let after = CURVE.iter().position(|(at, _)| *at >= x).unwrap_or(CURVE.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (CURVE[after - 1], CURVE[after]);
    (y0 + (x - x0).clamp(0.0, x1 - x0) / (x1 - x0) * (y1 - y0)).max(1.0)
}

pub(crate) fn stored(raw: u64) -> u64 {
    32 + (raw as f64 / ratio(raw)) as u64
}

/// A file, in traversal order.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) dir: u32,
    pub(crate) chunk: u32,
    /// The stored copy of the chunk that the newest point refers to.
    pub(crate) copy: u32,
}

/// A chunk as stored; one that was stored again has several.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) frame: u32,
    pub(crate) bytes: u32,
}

#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) raw: u64,
    pub(crate) pack: u32,
}

/// Which dedup hits of small chunks the capture accepts.
#[derive(Clone, Copy)]
pub(crate) enum Dedup {
    Always,
    Never,
    /// Into a frame that one of so many neighbours on either side, in the same directory, refers to.
    Neighbours(usize),
    /// Into a frame of which the changed files of one window use at least this share.
    Share(f64),
}

#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Raw bytes at which a frame is closed; a chunk of more than half of it has a frame of its own.
    pub(crate) group: u32,
    pub(crate) dedup: Dedup,
    /// Distance in the traversal of two neighbours in one frame, at most.
    pub(crate) gap: u32,
    /// A region whose reading costs more than this many times the fresh layout's is stored again.
    pub(crate) heal: f64,
    /// Files of a region.
    pub(crate) region: usize,
}

pub(crate) const PLAIN: Rules = Rules { group: 256 * KIB, dedup: Dedup::Always, gap: NONE, heal: 0.0, region: 64 };

#[derive(Clone, Copy)]
pub(crate) enum Tree {
    Usr,
    Linux,
}

/// A tree and the chain that holds it.
pub(crate) struct World {
    pub(crate) slots: Vec<Slot>,
    /// By chunk: bytes, and the newest stored copy.
    pub(crate) sizes: Vec<u32>,
    pub(crate) newest: Vec<u32>,
    pub(crate) copies: Vec<Stored>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) dirs: u32,
    pub(crate) dice: Dice,
    pub(crate) rules: Rules,
    /// The frame that is being filled, and the last file put into it.
    pub(crate) open: u32,
    pub(crate) open_at: u32,
    pub(crate) pack: u32,
    pub(crate) pack_bytes: u64,
    pub(crate) seen: Vec<u32>,
    pub(crate) stamp: u32,
    /// Raw bytes stored because they were new, and raw bytes that the chain had already.
    pub(crate) new_bytes: u64,
    pub(crate) again_bytes: u64,
}

impl World {
    pub(crate) fn empty(rules: Rules) -> World {
        World {
            slots: Vec::new(),
            sizes: Vec::new(),
            newest: Vec::new(),
            copies: Vec::new(),
            frames: Vec::new(),
            dirs: 0,
            dice: Dice(0x000a_11be_2f5d),
            rules,
            open: NONE,
            open_at: 0,
            pack: 0,
            pack_bytes: 0,
            seen: Vec::new(),
            stamp: 0,
            new_bytes: 0,
            again_bytes: 0,
        }
    }

    /// A tree of `files` files, captured in full.
    pub(crate) fn new(tree: Tree, files: usize, rules: Rules) -> World {
        let (median, sigma, per_dir) = match tree {
            // 65 % up to 4 KiB, 95 % up to 64 KiB.
            Tree::Usr => (1755.0f64, 2.2, 10.0),
            Tree::Linux => (4700.0, 1.5, 16.0),
        };
        let mut world = World::empty(rules);
        while world.slots.len() < files {
            let count = 1 + (per_dir * (world.dice.normal() * 1.1 - 0.6).exp()) as usize;
            for _ in 0..count {
                let bytes = median * (world.dice.normal() * sigma).exp();
                if bytes <= f64::from(INLINE_MAX) || bytes > f64::from(GROUPED_MAX) {
                    continue;
                }
                // One file in fifty has the content of another.
                let twin = world.dice.below(50) == 0 && !world.sizes.is_empty();
                let chunk =
                    if twin { world.dice.below(world.sizes.len() as u64) as u32 } else { world.chunk(bytes as u32) };
                world.slots.push(Slot { dir: world.dirs, chunk, copy: NONE });
            }
            world.dirs += 1;
        }
        world.slots.truncate(files);
        world.capture_all();
        (world.new_bytes, world.again_bytes) = (0, 0);
        world
    }

    pub(crate) fn capture_all(&mut self) {
        let healing = std::mem::replace(&mut self.rules.heal, 0.0);
        let all: Vec<u32> = (0..self.slots.len() as u32).collect();
        self.capture(&all);
        self.rules.heal = healing;
    }

    pub(crate) fn chunk(&mut self, bytes: u32) -> u32 {
        self.sizes.push(bytes);
        self.newest.push(NONE);
        self.sizes.len() as u32 - 1
    }

    pub(crate) fn bytes_of(&self, slot: usize) -> u64 {
        u64::from(self.sizes[self.slots[slot].chunk as usize])
    }

    pub(crate) fn frame_of(&self, slot: usize) -> u32 {
        self.copies.get(self.slots[slot].copy as usize).map_or(NONE, |c| c.frame)
    }

    /// A new mark for `seen`, so that it need not be cleared.
    pub(crate) fn fresh_stamp(&mut self) -> u32 {
        if self.seen.len() < self.frames.len() {
            self.seen.resize(self.frames.len() * 2, 0);
        }
        self.stamp += 1;
        self.stamp
    }

    pub(crate) fn store(&mut self, slot: u32) {
        let chunk = self.slots[slot as usize].chunk;
        let bytes = self.sizes[chunk as usize];
        let near = self.open != NONE && slot.wrapping_sub(self.open_at) <= self.rules.gap;
        let alone = bytes > self.rules.group / 2;
        // Closed when it has reached the size, so that the last chunk may go beyond it.
        if !near || alone || self.frames[self.open as usize].raw >= u64::from(self.rules.group) {
            self.close();
            self.open = self.frames.len() as u32;
            self.frames.push(Frame { raw: 0, pack: self.pack });
        }
        self.open_at = slot;
        self.frames[self.open as usize].raw += u64::from(bytes);
        let copy = self.copies.len() as u32;
        self.copies.push(Stored { frame: self.open, bytes });
        self.newest[chunk as usize] = copy;
        self.slots[slot as usize].copy = copy;
        if alone {
            self.close();
        }
    }

    pub(crate) fn close(&mut self) {
        if self.open != NONE {
            self.pack_bytes += stored(self.frames[self.open as usize].raw);
            if self.pack_bytes >= PACK_BYTES {
                (self.pack, self.pack_bytes) = (self.pack + 1, 0);
            }
            self.open = NONE;
        }
    }

    /// Stores what the files at `changed`, ascending, now hold; a session with packs of its own.
    pub(crate) fn capture(&mut self, changed: &[u32]) {
        let work: Vec<(u32, bool)> = match self.rules.heal > 0.0 {
            true => self.with_scattered_regions(changed),
            false => changed.iter().map(|slot| (*slot, false)).collect(),
        };
        let mut i = 0;
        while i < work.len() {
            // A window: what one frame of the walk would hold.
            let (mut end, mut raw) = (i, 0u64);
            while end < work.len() && raw < u64::from(self.rules.group) {
                if end > i && work[end].0 - work[end - 1].0 > self.rules.gap {
                    break;
                }
                raw += self.bytes_of(work[end].0 as usize);
                end += 1;
            }
            let accepted: Vec<bool> =
                (i..end).map(|at| !work[at].1 && self.accepts(work[at].0, &work[i..end])).collect();
            for (at, accepted) in (i..end).zip(accepted) {
                let (slot, rewrite) = work[at];
                let newest = self.newest[self.slots[slot as usize].chunk as usize];
                // What the open frame holds already is a hit whatever the rule.
                let in_open = newest != NONE && self.open != NONE && self.copies[newest as usize].frame == self.open;
                if accepted || (in_open && !rewrite) {
                    self.slots[slot as usize].copy = newest;
                    continue;
                }
                let bytes = self.bytes_of(slot as usize);
                *(if newest == NONE { &mut self.new_bytes } else { &mut self.again_bytes }) += bytes;
                self.store(slot);
            }
            i = end;
        }
        self.close();
        (self.pack, self.pack_bytes) = (self.pack + 1, 0);
    }

    /// Whether the chunk of `slot` may be taken from where the chain has it.
    pub(crate) fn accepts(&self, slot: u32, window: &[(u32, bool)]) -> bool {
        let at = slot as usize;
        let copy = self.newest[self.slots[at].chunk as usize];
        if copy == NONE {
            return false;
        }
        let frame = self.copies[copy as usize].frame;
        match self.rules.dedup {
            // Touched only: the reference that the parent has is as good as it was.
            _ if self.slots[at].copy == copy => true,
            Dedup::Always => true,
            Dedup::Never => false,
            Dedup::Neighbours(reach) => {
                let mut range = at.saturating_sub(reach)..(at + reach + 1).min(self.slots.len());
                range.any(|n| n != at && self.slots[n].dir == self.slots[at].dir && self.frame_of(n) == frame)
            }
            Dedup::Share(share) => {
                let used: u64 = window
                    .iter()
                    .map(|(n, _)| *n as usize)
                    .filter(|n| {
                        let newest = self.newest[self.slots[*n].chunk as usize];
                        newest != NONE && self.copies[newest as usize].frame == frame
                    })
                    .map(|n| self.bytes_of(n))
                    .sum();
                used as f64 >= share * self.frames[frame as usize].raw as f64
            }
        }
    }

    /// The changed files, and all of every region around one that has become too dear to read; the
    /// flag tells what is to be stored again even if the chain has it.
    pub(crate) fn with_scattered_regions(&mut self, changed: &[u32]) -> Vec<(u32, bool)> {
        let mut out = Vec::with_capacity(changed.len());
        let group = u64::from(self.rules.group);
        let mut i = 0;
        while i < changed.len() {
            let start = changed[i] as usize / self.rules.region * self.rules.region;
            let end = (start + self.rules.region).min(self.slots.len());
            let next = changed[i..].iter().position(|c| *c as usize >= end).map_or(changed.len(), |p| i + p);
            let stamp = self.fresh_stamp();
            let (mut cost, mut useful) = (0u64, 0u64);
            let mut of_changed = changed[i..next].iter().peekable();
            for slot in start..end {
                let bytes = self.bytes_of(slot);
                useful += bytes;
                if of_changed.next_if(|c| **c as usize == slot).is_some() {
                    cost += bytes + FRAME_OVERHEAD;
                    continue;
                }
                let frame = self.frame_of(slot) as usize;
                if self.seen[frame] != stamp {
                    self.seen[frame] = stamp;
                    cost += self.frames[frame].raw + FRAME_OVERHEAD;
                }
            }
            // Even fresh, a region touches one frame more than it fills.
            let fresh = useful + group + FRAME_OVERHEAD * (2 + useful / group);
            if cost as f64 > self.rules.heal * fresh as f64 {
                out.extend((start as u32..end as u32).map(|slot| (slot, true)));
            } else {
                out.extend(changed[i..next].iter().map(|slot| (*slot, false)));
            }
            i = next;
        }
        out
    }

    /// Frames and bytes decoded by a walk in order, with a cache of `cache` bytes, least recently used.
    pub(crate) fn walk(&self, cache: u64) -> (u64, u64) {
        let mut last = vec![0u64; self.frames.len()];
        let mut queue: VecDeque<(u32, u64)> = VecDeque::new();
        let (mut held, mut clock, mut frames, mut bytes) = (0u64, 0u64, 0u64, 0u64);
        for slot in 0..self.slots.len() {
            let frame = self.frame_of(slot);
            let raw = self.frames[frame as usize].raw;
            clock += 1;
            if last[frame as usize] == 0 {
                (frames, bytes, held) = (frames + 1, bytes + raw, held + raw);
            }
            last[frame as usize] = clock;
            queue.push_back((frame, clock));
            while held > cache && queue.len() > 1 {
                let Some((oldest, at)) = queue.pop_front() else { break };
                if last[oldest as usize] == at {
                    last[oldest as usize] = 0;
                    held -= self.frames[oldest as usize].raw;
                }
            }
        }
        (frames, bytes)
    }

    pub(crate) fn useful(&self) -> u64 {
        (0..self.slots.len()).map(|slot| self.bytes_of(slot)).sum()
    }

    pub(crate) fn stored_bytes(&self) -> u64 {
        self.frames.iter().map(|f| stored(f.raw)).sum()
    }

    /// Distinct frames that a leaf of `entries` files refers to, on average.
    pub(crate) fn frames_a_leaf(&mut self, entries: usize) -> f64 {
        let (mut total, mut leaves) = (0u64, 0u64);
        for start in (0..self.slots.len()).step_by(entries) {
            let stamp = self.fresh_stamp();
            leaves += 1;
            for slot in start..(start + entries).min(self.slots.len()) {
                let frame = self.frame_of(slot) as usize;
                if self.seen[frame] != stamp {
                    self.seen[frame] = stamp;
                    total += 1;
                }
            }
        }
        total as f64 / leaves as f64
    }
}
