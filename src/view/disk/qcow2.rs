//! A disk as a qcow2 image that exists only while it is read.
//!
//! The image has a header, a refcount table with its blocks, an L1 table and all L2 tables, and behind them the
//! disk itself, every cluster at its own place. Where a cluster is all zeros the tables say that it is not
//! allocated, and the file has a hole. So where anything stands follows from the disk's size alone, any part can
//! be made without the others, and data is the very chunks of the point.
//!
//! Source: `docs/interop/qcow2.txt` of QEMU, version 3 ("compat 1.1"). All numbers are big-endian.

use std::ops::Range;

/// Bits of a reference count: `1 << REFCOUNT_ORDER`.
const REFCOUNT_ORDER: u32 = 4;
/// Bytes of a reference count.
const REFCOUNT_BYTES: u64 = (1 << REFCOUNT_ORDER) / 8;
/// Bytes of an entry of an L1 or L2 table and of the refcount table.
const ENTRY_BYTES: u64 = 8;
/// "Its reference count is exactly one."
const COPIED: u64 = 1 << 63;
/// Bytes of the header of version 3 without extensions.
const HEADER_BYTES: u32 = 104;
/// Sizes are counted in sectors.
const SECTOR_BYTES: u64 = 512;

/// What an image is made of.
pub(super) trait Clusters {
    /// Why something could not be had.
    type Error;

    /// Whether a cluster of the disk holds anything but zeros: for each of `clusters`, in order. Clusters behind the
    /// disk's end do not.
    ///
    /// # Errors
    /// When the disk's map cannot be read.
    fn data(&self, clusters: Range<u64>) -> Result<Vec<bool>, Self::Error>;

    /// Fills `bytes` with what the disk holds from `offset` on; zeros behind its end.
    ///
    /// # Errors
    /// When a byte cannot be had.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Self::Error>;
}

/// Where everything stands in the image of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    cluster: u64,
    disk_bytes: u64,
    /// All in clusters of the image, one behind the other.
    refcount_table: Range<u64>,
    refcount_blocks: Range<u64>,
    l1: Range<u64>,
    l2: Range<u64>,
    disk: Range<u64>,
}

impl Layout {
    /// The image of a disk of `bytes` bytes with clusters of `cluster` bytes, a power of two from 512 to 2 MiB.
    pub(super) fn new(bytes: u64, cluster: u64) -> Layout {
        let disk_bytes = bytes.div_ceil(SECTOR_BYTES) * SECTOR_BYTES;
        let clusters = disk_bytes.div_ceil(cluster);
        let l2_tables = clusters.div_ceil(cluster / ENTRY_BYTES);
        let l1_clusters = (l2_tables * ENTRY_BYTES).div_ceil(cluster);
        // Reference counts count their own blocks and table, too.
        let (mut blocks, mut table) = (1, 1);
        loop {
            let all = 1 + table + blocks + l1_clusters + l2_tables + clusters;
            let wanted = all.div_ceil(cluster / REFCOUNT_BYTES);
            let wanted_table = (wanted * ENTRY_BYTES).div_ceil(cluster);
            if wanted <= blocks && wanted_table <= table {
                break;
            }
            (blocks, table) = (wanted.max(blocks), wanted_table.max(table));
        }
        let mut next = 1;
        let mut take = |clusters: u64| {
            let range = next..next + clusters;
            next = range.end;
            range
        };
        Layout {
            cluster,
            disk_bytes,
            refcount_table: take(table),
            refcount_blocks: take(blocks),
            l1: take(l1_clusters),
            l2: take(l2_tables),
            disk: take(clusters),
        }
    }

    /// Bytes of the image.
    pub(super) fn bytes(&self) -> u64 {
        self.disk.end * self.cluster
    }

    /// Where the disk's byte 0 stands in the image: all before is tables.
    pub(super) fn disk_start(&self) -> u64 {
        self.disk.start * self.cluster
    }

    /// Fills `bytes` with what the image holds from `offset` on. The range must lie in it.
    ///
    /// # Errors
    /// Those of `clusters`.
    pub(super) fn read<C: Clusters>(&self, offset: u64, bytes: &mut [u8], clusters: &C) -> Result<(), C::Error> {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            // Tables cluster by cluster; the disk, which has no structure, at once.
            let end = if at < self.disk_start() { (at / self.cluster + 1) * self.cluster } else { u64::MAX };
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(length);
            if at < self.disk_start() {
                let index = at / self.cluster;
                let whole = self.table(index, clusters)?;
                let skip = usize::try_from(at % self.cluster).unwrap_or(usize::MAX);
                let filled = whole.get(skip..).unwrap_or_default();
                let filled = filled.get(..length.min(filled.len())).unwrap_or_default();
                let (known, zeros) = part.split_at_mut(filled.len());
                known.copy_from_slice(filled);
                zeros.fill(0);
            } else {
                clusters.read(at - self.disk_start(), part)?;
            }
            at += length as u64;
            rest = behind;
        }
        Ok(())
    }

    /// What stands in a cluster of tables; zeros follow.
    fn table<C: Clusters>(&self, index: u64, clusters: &C) -> Result<Vec<u8>, C::Error> {
        let offsets = |of: Range<u64>, all: &Range<u64>, flags: u64| {
            of.take_while(|number| *number < all.end - all.start)
                .flat_map(|number| (((all.start + number) * self.cluster) | flags).to_be_bytes())
                .collect::<Vec<u8>>()
        };
        let entries = self.cluster / ENTRY_BYTES;
        let part = |table: &Range<u64>, entries: u64| {
            let first = (index - table.start) * entries;
            first..first + entries
        };
        if self.refcount_table.contains(&index) {
            Ok(offsets(part(&self.refcount_table, entries), &self.refcount_blocks, 0))
        } else if self.l1.contains(&index) {
            Ok(offsets(part(&self.l1, entries), &self.l2, COPIED))
        } else if self.l2.contains(&index) {
            let guest = part(&self.l2, entries);
            let data = clusters.data(guest.clone())?;
            let entry = |(number, data): (u64, bool)| {
                let place = ((self.disk.start + number) * self.cluster) | COPIED;
                if data { place } else { 0 }.to_be_bytes()
            };
            Ok(guest.zip(data).flat_map(entry).collect())
        } else if self.refcount_blocks.contains(&index) {
            let counted = part(&self.refcount_blocks, self.cluster / REFCOUNT_BYTES);
            let tables = counted.start.min(self.disk.start)..counted.end.min(self.disk.start);
            let guest = |cluster: u64| cluster.clamp(self.disk.start, self.disk.end) - self.disk.start;
            let data = clusters.data(guest(counted.start)..guest(counted.end))?;
            let tables = tables.map(|_| true);
            Ok(tables.chain(data).flat_map(|used| u16::from(used).to_be_bytes()).collect())
        } else {
            Ok(self.header())
        }
    }

    fn header(&self) -> Vec<u8> {
        let u32 = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut header = Vec::new();
        header.extend_from_slice(b"QFI\xfb");
        header.extend_from_slice(&3u32.to_be_bytes());
        // No backing file: its offset and length.
        header.extend_from_slice(&[0; 12]);
        header.extend_from_slice(&self.cluster.trailing_zeros().to_be_bytes());
        header.extend_from_slice(&self.disk_bytes.to_be_bytes());
        // Not encrypted.
        header.extend_from_slice(&0u32.to_be_bytes());
        header.extend_from_slice(&u32(self.l2.end - self.l2.start).to_be_bytes());
        header.extend_from_slice(&(self.l1.start * self.cluster).to_be_bytes());
        header.extend_from_slice(&(self.refcount_table.start * self.cluster).to_be_bytes());
        header.extend_from_slice(&u32(self.refcount_table.end - self.refcount_table.start).to_be_bytes());
        // No snapshots: their number and offset; no features that must, may or should be known.
        header.extend_from_slice(&[0; 36]);
        header.extend_from_slice(&REFCOUNT_ORDER.to_be_bytes());
        header.extend_from_slice(&HEADER_BYTES.to_be_bytes());
        // What follows is zeros: the end of the extensions.
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk in memory.
    struct Disk {
        bytes: Vec<u8>,
        cluster: u64,
    }

    impl Clusters for Disk {
        type Error = std::convert::Infallible;

        fn data(&self, clusters: Range<u64>) -> Result<Vec<bool>, Self::Error> {
            let cluster = usize::try_from(self.cluster).unwrap();
            let at = |number: u64| self.bytes.chunks(cluster).nth(usize::try_from(number).unwrap());
            Ok(clusters.map(|number| at(number).is_some_and(|data| data.iter().any(|byte| *byte != 0))).collect())
        }

        fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Self::Error> {
            let offset = usize::try_from(offset).unwrap().min(self.bytes.len());
            let known = &self.bytes[offset..self.bytes.len().min(offset + bytes.len())];
            bytes[..known.len()].copy_from_slice(known);
            bytes[known.len()..].fill(0);
            Ok(())
        }
    }

    fn image(disk: &Disk, step: usize) -> Vec<u8> {
        let layout = Layout::new(disk.bytes.len() as u64, disk.cluster);
        let mut image = vec![0xee; usize::try_from(layout.bytes()).unwrap()];
        for (at, part) in (0..).step_by(step).zip(image.chunks_mut(step)) {
            layout.read(at, part, disk).unwrap();
        }
        image
    }

    /// Whether `qemu-img` takes the image for sound and for the disk; says loudly when there is none.
    #[track_caller]
    fn judged_by_qemu(disk: &Disk) {
        use std::process::Command;
        let dir = tempfile::tempdir().unwrap();
        let (raw, made) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
        std::fs::write(&raw, &disk.bytes).unwrap();
        std::fs::write(&made, image(disk, 100_003)).unwrap();
        for arguments in [&["check", "-f", "qcow2"][..], &["compare", "-f", "raw", "-F", "qcow2"]] {
            let mut command = Command::new("qemu-img");
            command.args(arguments);
            if arguments[0] == "compare" {
                command.arg(&raw);
            }
            match command.arg(&made).output() {
                Ok(output) => assert!(
                    output.status.success(),
                    "{} bytes, clusters of {}: {}{}",
                    disk.bytes.len(),
                    disk.cluster,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                ),
                Err(_) => return crate::base::skip::skipped("no qemu-img: install qemu-utils"),
            }
        }
    }

    #[test]
    fn qemu_reads_the_disk_in_the_image() {
        for (bytes, cluster) in [
            (0, 65_536),
            (512, 65_536),
            (65_536, 65_536),
            (3_000_320, 65_536),
            // Several L2 tables and refcount blocks.
            (4 << 20, 512),
            ((20 << 20) + 512, 4096),
            (40 << 20, 16_384),
            (5 << 20, 1 << 20),
        ] {
            let mut disk = Disk { bytes: vec![0; bytes], cluster };
            for at in (0..bytes / 7919).step_by(3) {
                disk.bytes[at * 7919] = 1;
            }
            for (at, byte) in disk.bytes.iter_mut().enumerate().skip(bytes / 3).take(bytes / 5) {
                *byte = (at % 251) as u8;
            }
            judged_by_qemu(&disk);
        }
    }

    #[test]
    fn an_odd_end_is_filled_up_to_a_sector() {
        let disk = Disk { bytes: vec![7; 1001], cluster: 512 };
        let layout = Layout::new(1001, 512);
        let image = image(&disk, 300);
        assert_eq!(image[24..32], 1024u64.to_be_bytes());
        let start = usize::try_from(layout.disk_start()).unwrap();
        assert!(image[start..start + 1001].iter().all(|byte| *byte == 7));
        assert_eq!(image[start + 1001..], [0; 23]);
    }

    #[test]
    fn any_part_is_the_same_as_in_the_whole() {
        let disk = Disk { bytes: (0..100_000u32).flat_map(|n| (n / 9000 * 7).to_be_bytes()).collect(), cluster: 4096 };
        let whole = image(&disk, 1 << 30);
        for step in [1, 511, 4096, 5000, 70_000] {
            assert!(image(&disk, step) == whole, "{step}");
        }
    }

    #[test]
    fn a_disk_of_two_tebibytes_has_its_tables_where_they_belong() {
        let layout = Layout::new(2 << 40, 65_536);
        let l2_tables = (2u64 << 40) / 65_536 / 8192;
        assert_eq!(layout.l2.end - layout.l2.start, l2_tables);
        assert_eq!(layout.disk.end - layout.disk.start, (2 << 40) / 65_536);
        assert!(layout.disk_start() < 400 << 20, "{}", layout.disk_start());
    }
}
