//! The real binary, as a user and as a script meet it.

mod bench;
mod capture;
mod generated;
mod repository;
mod restore;
mod source;
mod together;
mod usage;
