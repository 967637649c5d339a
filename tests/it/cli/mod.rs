//! The real binary, as a user and as a script meet it.

mod bench;
mod cache;
mod capture;
mod children;
mod credential;
mod delete;
mod generated;
mod key;
mod repository;
mod restore;
mod slots;
mod source;
mod status;
mod stores;
mod together;
mod usage;
