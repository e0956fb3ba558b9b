//! Microbenchmarks and floors.
