//! The example programs are in the folders beside `src`.
