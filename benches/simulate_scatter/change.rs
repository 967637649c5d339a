//! How trees change between captures.

use crate::chain::{GROUPED_MAX, INLINE_MAX, NONE, Slot, World};

/// How a tree changes from one point to the next.
#[derive(Clone, Copy)]
pub(crate) enum Pattern {
    /// Any file.
    Uniform,
    /// Nine changes in ten fall on one file in fifty.
    Hot,
    /// Whole directories, at least a third of each.
    Clustered,
    /// Two directories move to the end, unnoticed by the capture; a tenth of the changes are clustered.
    Renames,
    /// One file in twenty switches among the contents of three branches, as by `git checkout`.
    Branches,
    /// Half of the changed files get the content of another file in the tree.
    Copies,
}

pub(crate) const PATTERNS: [(Pattern, &str); 6] = [
    (Pattern::Uniform, "uniform"),
    (Pattern::Hot, "hot set"),
    (Pattern::Clustered, "clustered"),
    (Pattern::Renames, "renames"),
    (Pattern::Branches, "branches"),
    (Pattern::Copies, "copies"),
];

/// Contents of the files that differ between branches.
pub(crate) type Branches = Vec<(u32, [u32; 3])>;

impl World {
    /// Changes the tree; returns the files that the capture must look at, ascending.
    pub(crate) fn change(&mut self, pattern: Pattern, rate: f64, branches: &mut Branches) -> Vec<u32> {
        let files = self.slots.len() as u64;
        let count = ((files as f64 * rate) as u64).max(1);
        let mut changed: Vec<u32> = Vec::new();
        match pattern {
            Pattern::Uniform | Pattern::Copies => changed.extend((0..count).map(|_| self.dice.below(files) as u32)),
            Pattern::Hot => {
                for _ in 0..count {
                    let any = self.dice.below(files);
                    let hot = self.dice.below(files / 50) * 50;
                    changed.push(if self.dice.below(10) == 0 { any } else { hot } as u32);
                }
            }
            Pattern::Clustered => self.pick_directories(count, &mut changed),
            Pattern::Renames => return self.move_directories(count),
            Pattern::Branches => return self.switch_branch(branches),
        }
        changed.sort_unstable();
        changed.dedup();
        for slot in &changed {
            if matches!(pattern, Pattern::Copies) && self.dice.below(2) == 0 {
                let other = self.dice.below(files) as usize;
                self.slots[*slot as usize].chunk = self.slots[other].chunk;
            } else {
                self.edit(*slot);
            }
        }
        changed
    }

    pub(crate) fn move_directories(&mut self, count: u64) -> Vec<u32> {
        let kept = self.slots.len();
        let mut moved: Vec<Slot> = Vec::new();
        for _ in 0..2 {
            let (start, end) = self.directory_around(self.slots.len() as u64);
            let directory = self.slots.drain(start..end);
            // Where the parent has nothing, every chunk is a dedup hit or new.
            moved.extend(directory.map(|s| Slot { dir: self.dirs, copy: NONE, ..s }));
            self.dirs += 1;
        }
        let first = (kept - moved.len()) as u32;
        let mut changed = Vec::new();
        self.pick_directories((count / 10).max(1), &mut changed);
        changed.sort_unstable();
        changed.dedup();
        for slot in &changed {
            self.edit(*slot);
        }
        self.slots.extend(moved);
        changed.extend(first..kept as u32);
        changed
    }

    pub(crate) fn switch_branch(&mut self, branches: &mut Branches) -> Vec<u32> {
        if branches.is_empty() {
            // Forty neighbours out of eight hundred.
            for slot in (0..self.slots.len() as u32).filter(|s| s / 40 % 20 == 0) {
                let now = self.slots[slot as usize].chunk;
                let bytes = self.sizes[now as usize];
                branches.push((slot, [now, self.chunk(bytes), self.chunk(bytes)]));
            }
        }
        let branch = self.dice.below(3) as usize;
        let mut changed = Vec::new();
        for (slot, contents) in branches {
            if self.dice.below(2000) == 0 {
                self.edit(*slot);
                contents[branch] = self.slots[*slot as usize].chunk;
                changed.push(*slot);
            } else if self.slots[*slot as usize].chunk != contents[branch] {
                self.slots[*slot as usize].chunk = contents[branch];
                changed.push(*slot);
            }
        }
        changed
    }

    pub(crate) fn edit(&mut self, slot: u32) {
        let bytes = self.bytes_of(slot as usize) as f64 * (0.9 + 0.2 * self.dice.unit());
        self.slots[slot as usize].chunk = self.chunk((bytes as u32).clamp(INLINE_MAX + 1, GROUPED_MAX));
    }

    pub(crate) fn directory_around(&mut self, files: u64) -> (usize, usize) {
        let any = self.dice.below(files) as usize;
        let dir = self.slots[any].dir;
        let start = (0..any).rev().take_while(|s| self.slots[*s].dir == dir).last().unwrap_or(any);
        let end = (any..self.slots.len()).take_while(|s| self.slots[*s].dir == dir).last().unwrap_or(any) + 1;
        (start, end)
    }

    pub(crate) fn pick_directories(&mut self, count: u64, changed: &mut Vec<u32>) {
        while (changed.len() as u64) < count {
            let (start, end) = self.directory_around(self.slots.len() as u64);
            let share = 0.3 + 0.7 * self.dice.unit();
            changed.extend((start..end).filter(|_| self.dice.unit() < share).map(|slot| slot as u32));
        }
    }
}
