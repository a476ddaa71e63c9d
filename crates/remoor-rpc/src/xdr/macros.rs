//! Declarations that read like the XDR language of the RFCs.

/// Structs whose XDR form is their fields in order. Error messages name the field's type.
#[macro_export]
macro_rules! xdr_struct {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl $crate::xdr::Xdr for $name {
            fn encode(&self, w: &mut $crate::xdr::Writer) {
                $($crate::xdr::Xdr::encode(&self.$field, w);)*
            }
            fn decode(r: &mut $crate::xdr::Reader) -> $crate::xdr::Result<Self> {
                Ok(Self { $($field: $crate::xdr::decode_field(r, concat!(stringify!($name), ".", stringify!($field)))?,)* })
            }
        }
    )*};
}

/// Closed enumerations: a value that is not listed is a decoding error.
#[macro_export]
macro_rules! xdr_enum {
    ($($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $crate::xdr::Xdr for $name {
            fn encode(&self, w: &mut $crate::xdr::Writer) {
                w.u32(*self as u32);
            }
            fn decode(r: &mut $crate::xdr::Reader) -> $crate::xdr::Result<Self> {
                match r.u32(stringify!($name))? {
                    $($value => Ok(Self::$variant),)*
                    value => Err(r.error(stringify!($name), $crate::xdr::ErrorKind::BadValue { value })),
                }
            }
        }
    )*};
}

/// Open enumerations: a value that is not listed is kept as `Unknown`.
#[macro_export]
macro_rules! xdr_open_enum {
    ($($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal $wire:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)*
            /// A value this program does not know, kept as it came.
            Unknown(u32),
        }

        impl $name {
            /// The number on the wire.
            pub fn number(self) -> u32 {
                match self { $(Self::$variant => $value,)* Self::Unknown(v) => v }
            }
        }

        impl From<u32> for $name {
            fn from(v: u32) -> Self {
                match v { $($value => Self::$variant,)* v => Self::Unknown(v) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($wire),)*
                    Self::Unknown(v) => write!(f, "{} {v}", stringify!($name)),
                }
            }
        }

        impl $crate::xdr::Xdr for $name {
            fn encode(&self, w: &mut $crate::xdr::Writer) {
                w.u32(self.number());
            }
            fn decode(r: &mut $crate::xdr::Reader) -> $crate::xdr::Result<Self> {
                r.u32(stringify!($name)).map(Self::from)
            }
        }
    )*};
}
