//! End to end: the real binary on real tokens, judged by other people's programs.
//!
//! Each test owns a temporary directory with a token of its own; nothing is skipped, and what is missing fails with the
//! package to install.

#![allow(missing_docs, clippy::unwrap_used)]

mod access;
mod agent;
mod audit;
mod certificate;
mod certificate_files;
mod cli;
mod clients;
mod compatibility;
mod completions;
mod config;
mod corpus;
mod curl;
mod custody;
mod deadline;
mod deploy;
mod doctor;
mod doctor_agent;
mod faults;
mod field;
mod forged_agent;
mod forged_frames;
mod fuse;
mod games;
mod hints;
mod hostile;
mod list;
mod load;
mod losses;
mod manual;
mod memory;
mod model;
mod modules;
mod odd;
mod odd_hosts;
mod openapi;
mod pin;
mod process;
mod sandbox;
mod scripts;
mod select;
mod serve;
mod service;
mod sign;
mod stand;
mod stderr;
mod streams;
mod system_policy;
mod tenants;
mod terminal;
mod uris;
mod verify;
mod waiting;
