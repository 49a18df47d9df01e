//! When this instance asks, and what it makes of the answers.
