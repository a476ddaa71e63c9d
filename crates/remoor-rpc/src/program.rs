//! Program tables. One row of [`program!`](crate::program!) declares a procedure; server dispatch, client calls,
//! names in logs and the retransmission rules all read that row.

use crate::xdr::Xdr;

/// A remote procedure: its numbers and its types.
pub trait Procedure: 'static {
    /// Program number.
    const PROGRAM: u32;
    /// Program version.
    const VERSION: u32;
    /// Procedure number.
    const NUMBER: u32;
    /// Name as in its RFC.
    const NAME: &'static str;
    /// Whether executing it twice leaves the same state and the same result as once.
    const IDEMPOTENT: bool;
    /// Arguments.
    type Args: Xdr + std::fmt::Debug + Send;
    /// Result.
    type Res: Xdr + std::fmt::Debug + Send;
}

/// A version of a program, for lookups by number.
#[derive(Debug)]
pub struct Program {
    /// Name as in its RFC.
    pub name: &'static str,
    /// Program number.
    pub number: u32,
    /// Version.
    pub version: u32,
    /// Procedures; the index is the number.
    pub procedures: &'static [ProcedureRow],
}

/// What can be said of a procedure without its types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcedureRow {
    /// Procedure number.
    pub number: u32,
    /// Name as in its RFC.
    pub name: &'static str,
    /// Whether executing it twice leaves the same state and the same result as once.
    pub idempotent: bool,
}

impl ProcedureRow {
    /// The row of `P`.
    pub const fn of<P: Procedure>() -> Self {
        Self { number: P::NUMBER, name: P::NAME, idempotent: P::IDEMPOTENT }
    }
}

impl Program {
    /// The procedure with this number.
    pub fn procedure(&self, number: u32) -> Option<&'static ProcedureRow> {
        self.procedures.get(number as usize)
    }
}

/// Declares a version of a program:
///
/// ```
/// remoor_rpc::program! {
///     /// A program that adds.
///     pub PROGRAM = "ADDER" 0x2000_0001 version 1;
///     0 Null "NULL" idempotent () => (),
///     1 Add "ADD" idempotent u32 => u64,
///     2 Clear "CLEAR" once () => (),
/// }
/// assert_eq!(PROGRAM.procedure(2).unwrap().name, "CLEAR");
/// assert!(!PROGRAM.procedure(2).unwrap().idempotent);
/// ```
///
/// Each row gives a unit type that implements [`Procedure`]. Rows must be in order of their numbers, from 0.
#[macro_export]
macro_rules! program {
    (
        $(#[$meta:meta])*
        pub $table:ident = $name:literal $number:literal version $version:literal;
        $($proc_number:literal $proc:ident $proc_name:literal $idem:ident $args:ty => $res:ty,)*
    ) => {
        $(
            #[doc = concat!("Procedure ", $proc_number, ", ", $proc_name, ".")]
            #[derive(Debug, Clone, Copy)]
            pub enum $proc {}

            impl $crate::program::Procedure for $proc {
                const PROGRAM: u32 = $number;
                const VERSION: u32 = $version;
                const NUMBER: u32 = $proc_number;
                const NAME: &'static str = $proc_name;
                const IDEMPOTENT: bool = $crate::program!(@ $idem);
                type Args = $args;
                type Res = $res;
            }
        )*

        $(#[$meta])*
        pub static $table: $crate::program::Program = $crate::program::Program {
            name: $name,
            number: $number,
            version: $version,
            procedures: &[$($crate::program::ProcedureRow::of::<$proc>(),)*],
        };

        const _: () = {
            let numbers = [$($proc_number as u32,)*];
            let mut i = 0;
            while i < numbers.len() {
                assert!(numbers[i] == i as u32, "rows must be in order of their numbers, from 0");
                i += 1;
            }
        };
    };
    (@ idempotent) => { true };
    (@ once) => { false };
}
