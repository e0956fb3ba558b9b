//! A sound history passes; each planted fault is caught, and named for what it is.

mod lookups;
mod records;
mod removal;
mod story;
mod topics;
