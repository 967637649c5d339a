//! Translates kernel requests to a view, and writes to the control file to jobs.
//!
//! ```text
//!  requests   kernel > adapter > dispatch (threads, deadlines) > ops (answers) > Namespace | desk (`.amberfs/`) > Control
//!  unasked    Namespace > beside > kernel
//!  processes  launch > supervise > server > serve > attach (mount), detach (unmount), place (where), mountinfo (what is there), log_file (last words)
//! ```

mod adapter;
mod attach;
mod beside;
mod desk;
mod desk_node;
mod detach;
mod dispatch;
mod errno;
mod error;
mod handles;
mod launch;
mod lifeline;
mod log_file;
mod mountinfo;
mod ops;
mod options;
mod place;
mod serve;
mod server;
mod supervise;
mod sys;

pub use detach::unmount;
pub use error::MountError;
pub use launch::{Failed, Launch, Role, mount};
pub use log_file::{LogFile, keep_log_bounded};
pub use mountinfo::DeviceId;
pub use options::{MountOptions, OptionError};
pub use place::prepare;
pub use serve::{Contents, serve};
