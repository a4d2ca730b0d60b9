//! The macro by which every setting is written once: from one line come the struct field, the default, the reader, the example and the documentation.

/// When a changed setting takes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// As soon as the daemon is told to reload (SIGHUP).
    OnReload,
    /// When the daemon is started again.
    AtRestart,
}

/// One setting as the declaration has it.
#[derive(Clone, Debug)]
pub struct Key {
    /// The table it stands in, such as `daemon`.
    pub section: &'static str,
    /// Its name in that table.
    pub name: &'static str,
    /// What it is for: the doc comment, a line each.
    pub doc: &'static [&'static str],
    /// What may be written: `an absolute path`, `a whole number from 1 to 64`.
    pub takes: String,
    /// When a change takes hold.
    pub applies: Applies,
}

impl Key {
    /// `section.name`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// Declares the sections. A line reads `name: Type = default, shape, applies;`.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $struct:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty = $default:expr, $shape:expr, $applies:ident;
            )*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $struct {
                $( $(#[doc = $doc])* pub $key: $type, )*
            }

            impl Default for $struct {
                fn default() -> $struct {
                    $struct { $( $key: $default, )* }
                }
            }
        )*

        /// The whole configuration. Every key is optional; `Config::default()` is what an empty file means.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $section_doc])* pub $section: $struct, )*
            /// The tables `[runtimes.NAME]`, by their names.
            pub runtimes: std::collections::BTreeMap<String, RuntimeHandler>,
        }

        /// The sections in the order of the declaration, with what they are for.
        pub(super) const SECTIONS: &[(&str, &[&str])] = &[
            $( (stringify!($section), &[$($section_doc),*]), )*
        ];

        /// Every setting, in the order of the declaration.
        pub fn keys() -> Vec<Key> {
            vec![
                $( $( Key {
                    section: stringify!($section),
                    name: stringify!($key),
                    doc: &[$($doc),*],
                    takes: $crate::config::shape::Shape::<$type>::takes(&$shape),
                    applies: Applies::$applies,
                }, )* )*
            ]
        }

        /// Sets one key from what a file says; `None` where there is no such key.
        pub(super) fn set(
            config: &mut Config,
            section: &str,
            key: &str,
            value: &toml::de::DeValue<'_>,
        ) -> Option<Result<(), $crate::config::shape::Refusal>> {
            match (section, key) {
                $( $( (stringify!($section), stringify!($key)) => {
                    let read: Result<$type, _> = $crate::config::shape::Shape::read(&$shape, value);
                    Some(read.map(|value| config.$section.$key = value))
                } )* )*
                _ => None,
            }
        }

        /// Each setting's value as it is written in a file, in the order of [`keys`].
        pub(super) fn written(config: &Config) -> Vec<String> {
            vec![
                $( $( $crate::config::shape::Shape::<$type>::write(&$shape, &config.$section.$key), )* )*
            ]
        }
    };
}

/// Declares a table that may stand several times, each with a name of its own behind the dot. A line reads as in [`sections`].
macro_rules! table {
    (
        $(#[doc = $table_doc:literal])*
        $section:literal: $struct:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty = $default:expr, $shape:expr, $applies:ident;
            )*
        }
    ) => {
        $(#[doc = $table_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $struct {
            $( $(#[doc = $doc])* pub $key: $type, )*
        }

        impl Default for $struct {
            fn default() -> $struct {
                $struct { $( $key: $default, )* }
            }
        }

        impl $struct {
            /// What the table is for.
            pub(super) const DOC: &'static [&'static str] = &[$($table_doc),*];

            /// Every setting, in the order of the declaration.
            pub fn keys() -> Vec<Key> {
                vec![
                    $( Key {
                        section: $section,
                        name: stringify!($key),
                        doc: &[$($doc),*],
                        takes: $crate::config::shape::Shape::<$type>::takes(&$shape),
                        applies: Applies::$applies,
                    }, )*
                ]
            }

            /// Sets one key from what a file says; `None` where there is no such key.
            pub(super) fn set(
                &mut self,
                key: &str,
                value: &toml::de::DeValue<'_>,
            ) -> Option<Result<(), $crate::config::shape::Refusal>> {
                match key {
                    $( stringify!($key) => {
                        let read: Result<$type, _> = $crate::config::shape::Shape::read(&$shape, value);
                        Some(read.map(|value| self.$key = value))
                    } )*
                    _ => None,
                }
            }

            /// Each setting's value as it is written in a file, in the order of [`Self::keys`].
            pub(super) fn written(&self) -> Vec<String> {
                vec![ $( $crate::config::shape::Shape::<$type>::write(&$shape, &self.$key), )* ]
            }
        }
    };
}

pub(super) use sections;
pub(super) use table;
