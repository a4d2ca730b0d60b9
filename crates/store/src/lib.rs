//! The one database: its schema, its versions and its transactions.
