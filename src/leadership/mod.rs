//! Who may act. The rest of the program knows of leadership only [`tenure::Tenure`], the permit.

pub mod tenure;
