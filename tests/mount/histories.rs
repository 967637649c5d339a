//! Random histories (`tests/it/history.rs`) read through a kernel mount: every point is what the source was.

use amberfs::store::Store;

use crate::history::{History, each, play};
use crate::processes::Toy;
use crate::real::Real;
use crate::world::{real, same};

fn history(seed: u64) {
    let mount = Real { toy: Toy::unmounted() };
    let store = Store::create_local(&mount.toy.beside("repository")).unwrap();
    let History { remembered, .. } = play(seed, store);
    mount.mount();
    for (name, expected) in &remembered {
        same(expected, &real(&mount.toy.join(&format!("home/points/{name}"))), name);
    }
    let listed = std::fs::read_dir(mount.toy.join("home/points")).unwrap();
    let mut listed: Vec<String> = listed.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort();
    let mut names: Vec<&String> = remembered.iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(listed.iter().collect::<Vec<_>>(), names);
    let latest = std::fs::read_link(mount.toy.join("home/latest")).unwrap();
    assert_eq!(latest.to_str(), Some(format!("points/{}", remembered.last().unwrap().0).as_str()));
    mount.succeeds(&["umount", &mount.place()]);
}

#[test]
fn every_point_of_any_history_is_in_the_mount_as_the_source_was() {
    // A tenth of those without a kernel.
    each(10, history);
}
