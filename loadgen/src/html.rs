//! Reports as one page for people: figures, charts and conditions, in a file that needs nothing else.
//!
//! Pure: reports in, text out. The page holds its style and its drawings, runs no script and loads nothing. What a
//! report holds is text to it, never markup, which `markup` sees to.

mod axis;
mod markup;
mod page;
mod percentile_curve;
mod run;
mod settings;
mod svg;
mod table;
mod timeline;
mod units;

pub use page::page;
