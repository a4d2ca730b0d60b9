//! Whole specs: a golden one, and what each part of a request changes.
