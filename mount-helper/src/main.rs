//! `mount.amberfs`: what mount(8) and fstab call.

fn main() {}
