//! Where the partitions of a disk lie, as its GPT or MBR says.
//!
//! The tables are whatever the disk holds, so nothing in them is believed: counts and offsets are bounded,
//! checksums are checked, chains end. A table that makes no sense yields no partitions; a partition that
//! reaches beyond the disk is cut off there.
//!
//! Sources: UEFI Specification 2.10, chapter 5 (GPT); for MBR and its chain of extended partitions,
//! <https://en.wikipedia.org/wiki/Master_boot_record> and <https://en.wikipedia.org/wiki/Extended_boot_record>.

use std::ops::Range;

/// Most partitions that are shown.
const PARTITIONS_MAX: u32 = 256;
/// Most bytes of a GPT's entries that are read.
const ENTRIES_BYTES_MAX: u64 = 1 << 20;
/// The two bytes at the end of a boot record.
const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// The type of the one partition that guards a GPT from tools that do not know it.
const PROTECTIVE: u8 = 0xee;
/// Types of partitions that hold a chain of others.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its number, as Linux counts: from 1; logical ones of an MBR from 5.
    pub(super) number: u32,
    /// Where it lies on the disk, in bytes.
    pub(super) place: Range<u64>,
}

/// The partitions of a disk of `bytes` bytes with sectors of `sector` bytes, by number. `read` yields so many bytes
/// from an offset on, fewer only at the disk's end.
///
/// # Errors
/// Those of `read`; a table that is no table is none.
pub(super) fn partitions<E>(
    bytes: u64,
    sector: u32,
    read: impl Fn(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Vec<Partition>, E> {
    let sector = u64::from(sector).max(512);
    let record = read(0, 512)?;
    if record.get(510..512) != Some(&BOOT_SIGNATURE) {
        return Ok(Vec::new());
    }
    let primary = entries(&record);
    if primary.iter().any(|entry| entry.kind == PROTECTIVE) {
        // The first copy, or else the one at the disk's end. An image may have been made of a disk with other sectors.
        for sector in [sector, 512, 4096] {
            for at in [Some(sector), bytes.checked_sub(sector)].into_iter().flatten() {
                if let Some(found) = gpt(bytes, sector, at, &read)? {
                    return Ok(found);
                }
            }
        }
        return Ok(Vec::new());
    }
    mbr(bytes, sector, &primary, &read)
}

/// An entry of a boot record, in sectors.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u8,
    start: u64,
    sectors: u64,
}

fn entries(record: &[u8]) -> Vec<Entry> {
    let table = record.get(446..510).unwrap_or_default();
    table
        .chunks_exact(16)
        .map(|entry| Entry {
            kind: entry.get(4).copied().unwrap_or(0),
            start: u64::from(le32(entry, 8)),
            sectors: u64::from(le32(entry, 12)),
        })
        .collect()
}

fn mbr<E>(
    bytes: u64,
    sector: u64,
    primary: &[Entry],
    read: &impl Fn(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Vec<Partition>, E> {
    let place = |start: u64, sectors: u64| clip(start * sector..(start + sectors) * sector, bytes);
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(primary) {
        if entry.kind != 0 && !EXTENDED.contains(&entry.kind) {
            found.extend(place(entry.start, entry.sectors).map(|place| Partition { number, place }));
        }
    }
    // Each link of the chain holds one logical partition and where the next link is, both relative.
    let Some(chain) = primary.iter().find(|entry| EXTENDED.contains(&entry.kind)) else { return Ok(found) };
    let (mut at, mut number) = (chain.start, 5);
    let mut seen = std::collections::HashSet::new();
    // Links without a partition are none that a tool would make: they count as well, or a disk could hold millions.
    while seen.len() < PARTITIONS_MAX as usize && seen.insert(at) && at * sector < bytes {
        let record = read(at * sector, 512)?;
        if record.get(510..512) != Some(&BOOT_SIGNATURE) {
            break;
        }
        let links = entries(&record);
        if let Some(entry) = links.iter().find(|entry| entry.kind != 0 && !EXTENDED.contains(&entry.kind)) {
            found.extend(place(at + entry.start, entry.sectors).map(|place| Partition { number, place }));
            number += 1;
        }
        match links.iter().find(|entry| EXTENDED.contains(&entry.kind)) {
            Some(next) => at = chain.start + next.start,
            None => break,
        }
    }
    Ok(found)
}

/// The partitions of the GPT whose header stands at byte `at`; none if there is no sound one.
fn gpt<E>(
    bytes: u64,
    sector: u64,
    at: u64,
    read: &impl Fn(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<Partition>>, E> {
    let header = read(at, 512)?;
    let header_bytes = le32(&header, 12) as usize;
    let Some(checked) = header.get(..header_bytes).filter(|checked| checked.len() >= 92) else { return Ok(None) };
    let mut without = checked.to_vec();
    if let Some(checksum) = without.get_mut(16..20) {
        checksum.fill(0);
    }
    let sound = checked.starts_with(b"EFI PART") && crc32fast::hash(&without) == le32(checked, 16);
    let (entries_at, count, entry_bytes) = (le64(checked, 72), le32(checked, 80), u64::from(le32(checked, 84)));
    let all = u64::from(count).saturating_mul(entry_bytes);
    if !sound || !(128..=4096).contains(&entry_bytes) || all > ENTRIES_BYTES_MAX {
        return Ok(None);
    }
    let Some(entries_at) = entries_at.checked_mul(sector).filter(|at| *at < bytes) else { return Ok(None) };
    let table = read(entries_at, usize::try_from(all).unwrap_or(usize::MAX))?;
    if table.len() as u64 != all || crc32fast::hash(&table) != le32(checked, 88) {
        return Ok(None);
    }
    let entries = (1..=PARTITIONS_MAX).zip(table.chunks_exact(usize::try_from(entry_bytes).unwrap_or(usize::MAX)));
    let found =
        entries.filter(|(_, entry)| entry.iter().take(16).any(|byte| *byte != 0)).filter_map(|(number, entry)| {
            let start = le64(entry, 32).checked_mul(sector)?;
            let end = le64(entry, 40).checked_add(1)?.checked_mul(sector)?;
            clip(start..end, bytes).map(|place| Partition { number, place })
        });
    Ok(Some(found.collect()))
}

/// What of `place` lies on a disk of `bytes` bytes, if anything does.
fn clip(place: Range<u64>, bytes: u64) -> Option<Range<u64>> {
    let place = place.start..place.end.min(bytes);
    (place.start < place.end).then_some(place)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|field| field.first_chunk());
    u32::from_le_bytes(field.copied().unwrap_or_default())
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|field| field.first_chunk());
    u64::from_le_bytes(field.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// An image of `mib` MiB with the partition table that `sfdisk` makes of `script`; none without `sfdisk`.
    #[track_caller]
    fn image(mib: usize, script: &str) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        std::fs::File::create(&path).unwrap().set_len((mib as u64) << 20).unwrap();
        let spawned = Command::new("sfdisk").arg("--quiet").arg(&path).stdin(Stdio::piped()).spawn();
        let Ok(mut child) = spawned else {
            crate::base::skip::skipped("no sfdisk: install fdisk");
            return None;
        };
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{script}");
        Some(std::fs::read(path).unwrap())
    }

    fn found(image: &[u8], sector: u32) -> Vec<(u32, u64, u64)> {
        let read = |at: u64, bytes: usize| -> Result<Vec<u8>, ()> {
            let at = usize::try_from(at).unwrap().min(image.len());
            Ok(image[at..image.len().min(at + bytes)].to_vec())
        };
        let found = partitions(image.len() as u64, sector, read).unwrap();
        found.iter().map(|it| (it.number, it.place.start / 512, (it.place.end - it.place.start) / 512)).collect()
    }

    /// What `partx` says of the same image.
    fn judged(image: &[u8]) -> Vec<(u32, u64, u64)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(image).unwrap();
        let mut partx = Command::new("partx");
        partx.args(["--show", "--noheadings", "--output", "NR,START,SECTORS"]);
        let mut output = output_of(&mut partx, file.path());
        output.retain(|line| !line.is_empty());
        output
            .iter()
            .map(|line| {
                let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
                (u32::try_from(fields[0]).unwrap(), fields[1], fields[2])
            })
            .collect()
    }

    fn output_of(command: &mut Command, path: &std::path::Path) -> Vec<String> {
        let output = command.arg(path).output().unwrap();
        // It ends with 1 when there is a table and no partition.
        assert!(output.stderr.is_empty() || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn partitions_lie_where_other_tools_see_them() {
        for (script, numbers) in [
            ("label: gpt\nsize=10MiB\nsize=5MiB\nsize=3MiB\n", &[1, 2, 3][..]),
            ("label: gpt\n2: start=20480, size=4096\n9: start=40960, size=8192\n", &[2, 9]),
            ("label: dos\nsize=10MiB, type=83\nsize=5MiB, type=82\n", &[1, 2]),
            ("label: dos\nsize=4MiB\nsize=40MiB, type=f\nsize=6MiB\nsize=7MiB\nsize=8MiB\n", &[1, 3, 5, 6, 7]),
            ("label: dos\n4: start=2048, size=2048\n", &[4]),
            ("label: gpt\n", &[]),
        ] {
            let Some(image) = image(64, script) else { return };
            let found = found(&image, 512);
            // partx lists the extended partition itself, which holds the others and is none.
            let judged: Vec<_> = judged(&image).into_iter().filter(|(number, ..)| numbers.contains(number)).collect();
            assert_eq!(found.iter().map(|(number, ..)| number).copied().collect::<Vec<_>>().len(), found.len());
            if script.contains("type=f") {
                let logical: Vec<_> = found.iter().filter(|(number, ..)| *number >= 5).collect();
                assert_eq!(logical, judged.iter().filter(|(number, ..)| *number >= 5).collect::<Vec<_>>());
            } else {
                assert_eq!(found, judged, "{script}");
                assert_eq!(found.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), numbers);
            }
        }
    }

    #[test]
    fn the_copy_of_a_gpt_stands_in_for_it() {
        let Some(mut image) = image(64, "label: gpt\nsize=10MiB\nsize=5MiB\n") else { return };
        let whole = found(&image, 512);
        assert_eq!(whole.len(), 2);
        for damage in [512 + 20, 1024 + 40] {
            image[damage] ^= 1;
            assert_eq!(found(&image, 512), whole, "byte {damage}");
        }
        let end = image.len();
        image[end - 500] ^= 1;
        assert_eq!(found(&image, 512), []);
    }

    #[test]
    fn a_hostile_table_yields_little_and_ends() {
        let Some(image) = image(64, "label: dos\nsize=4MiB\nsize=40MiB, type=f\nsize=6MiB\nsize=7MiB\n") else {
            return;
        };
        // A chain that leads back to itself, and one that leads out of the disk.
        let extended = u64::from(le32(&image[446 + 16..], 8)) as usize * 512;
        for next in [0u32, 1 << 30] {
            let mut hostile = image.clone();
            hostile[extended + 446 + 16 + 8..][..4].copy_from_slice(&next.to_le_bytes());
            assert!(found(&hostile, 512).len() <= 3);
        }
        // A partition beyond the end is cut off there, one that begins behind it is none.
        let mut cut = image.clone();
        cut.truncate(3 << 20);
        let found = found(&cut, 512);
        assert_eq!(found, [(1, 2048, (3 << 20) / 512 - 2048)]);
    }

    /// Each sector leads to the next and names no partition: a disk can hold millions of such links.
    #[test]
    fn a_chain_of_links_without_partitions_ends() {
        let reads = std::cell::Cell::new(0);
        let read = |at: u64, _: usize| -> Result<Vec<u8>, ()> {
            reads.set(reads.get() + 1);
            let mut record = vec![0; 512];
            record[446 + 4] = 0x05;
            let next = u32::try_from(at / 512).unwrap() + u32::from(at == 0);
            record[446 + 8..][..4].copy_from_slice(&next.to_le_bytes());
            record[510..].copy_from_slice(&BOOT_SIGNATURE);
            Ok(record)
        };
        assert_eq!(partitions(1 << 30, 512, read), Ok(Vec::new()));
        assert!(reads.get() <= PARTITIONS_MAX + 1, "{} reads", reads.get());
    }

    proptest::proptest! {
        /// Whatever stands where a table is looked for, it is read without a panic, and what is found lies on the disk.
        #[test]
        fn noise_is_no_table(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 2048..8192), gpt: bool) {
            bytes[510..512].copy_from_slice(&BOOT_SIGNATURE);
            if gpt {
                bytes[450] = PROTECTIVE;
                bytes[512..520].copy_from_slice(b"EFI PART");
            }
            for (_, start, sectors) in found(&bytes, 512) {
                proptest::prop_assert!((start + sectors) * 512 <= bytes.len() as u64 + 511);
            }
        }
    }
}
