// SPDX-License-Identifier: BSD-3-Clause
//! What went wrong: a status to branch on, a line to show.

use std::ffi::CStr;
use std::fmt;

use crate::sys;

/// The kind of a failure; `status as i32` is the value of C's `enum attn_status_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Status {
    /// A kind that only a newer library knows.
    Unknown = -1,
    /// A tensor is missing.
    Null = sys::ATTN_ERROR_NULL,
    /// A number is outside its range, or two options contradict each other.
    Value = sys::ATTN_ERROR_VALUE,
    /// A rank or an axis has the wrong length, or a mask cannot be broadcast.
    Shape = sys::ATTN_ERROR_SHAPE,
    /// An element type is not the expected one.
    Dtype = sys::ATTN_ERROR_DTYPE,
    /// An output overlaps itself.
    Overlap = sys::ATTN_ERROR_OVERLAP,
    /// A product of sizes does not fit the address space.
    Overflow = sys::ATTN_ERROR_OVERFLOW,
    /// A layer has no parameter of that name, or one has not been loaded.
    Parameter = sys::ATTN_ERROR_PARAMETER,
    /// The workspace is too small.
    Workspace = sys::ATTN_ERROR_WORKSPACE,
    /// An allocation failed.
    Memory = sys::ATTN_ERROR_MEMORY,
    /// A thread could not be created.
    Thread = sys::ATTN_ERROR_THREAD,
    /// Valid, but not in this version or build of the library.
    Unsupported = sys::ATTN_ERROR_UNSUPPORTED,
    /// The BLAS found at run time cannot be used.
    Blas = sys::ATTN_ERROR_BLAS,
    /// A wrong result in the self-test.
    Selftest = sys::ATTN_ERROR_SELFTEST,
}

impl Status {
    pub(crate) fn from_code(code: i32) -> Status {
        use Status::*;
        let known = [
            Null,
            Value,
            Shape,
            Dtype,
            Overlap,
            Overflow,
            Parameter,
            Workspace,
            Memory,
            Thread,
            Unsupported,
            Blas,
            Selftest,
        ];
        known
            .iter()
            .copied()
            .find(|status| *status as i32 == code)
            .unwrap_or(Unknown)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the text is static memory for any number.
        let text = unsafe { CStr::from_ptr(sys::attn_status_text(*self as i32)) };
        f.write_str(&text.to_string_lossy())
    }
}

/// A failure of a call. Outputs are untouched unless its status is [`Status::Thread`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    status: Status,
    message: String,
}

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(status: Status, message: String) -> Error {
        Error { status, message }
    }

    /// The kind of the failure.
    pub fn status(&self) -> Status {
        self.status
    }

    /// One line that names the argument, what was expected and what was found.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Turns the status of a call this thread has just made into a result.
pub(crate) fn check(code: i32) -> Result<()> {
    if code == sys::ATTN_OK {
        return Ok(());
    }
    // SAFETY: never NULL; the text stays valid until this thread's next call, after the copy.
    let detail = unsafe { CStr::from_ptr(sys::attn_last_error()) };
    Err(Error::new(
        Status::from_code(code),
        detail.to_string_lossy().into_owned(),
    ))
}
