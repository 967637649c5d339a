//! The real binary, as a user and as a script meet it.

mod bench;
mod cache;
mod capture;
mod children;
mod delete;
mod generated;
mod key;
mod repository;
mod restore;
mod source;
mod stores;
mod together;
mod usage;
