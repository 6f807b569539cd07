// SPDX-License-Identifier: BSD-3-Clause
//! Whether this machine computes what it should.

use std::any::Any;
use std::ffi::CStr;
use std::os::raw::{c_char, c_void};
use std::panic::{self, AssertUnwindSafe};

use crate::context::{static_text, Context};
use crate::error::{check, Error, Result, Status};
use crate::sys;

/// Computes what has a known result under the context and compares; `visit` is told the name and
/// the outcome of each check. The result is that of the first that found something wrong.
///
/// ```
/// use attention::{selftest, Context};
///
/// selftest(&Context::default(), |check, outcome| println!("{}: {:?}", check, outcome)).unwrap();
/// ```
pub fn selftest<F>(context: &Context, visit: F) -> Result<()>
where
    F: FnMut(&'static str, Result<()>),
{
    let mut visitor = Visitor { visit, panic: None };
    let params = sys::attn_selftest_params {
        visit: Some(tell::<F>),
        visit_state: &mut visitor as *mut Visitor<F> as *mut c_void,
        ..Default::default()
    };
    // SAFETY: the visitor outlives the call, which tells it on this thread.
    let outcome = check(unsafe { sys::attn_selftest(context.as_raw(), &params) });
    if let Some(payload) = visitor.panic {
        panic::resume_unwind(payload);
    }
    outcome
}

struct Visitor<F> {
    visit: F,
    panic: Option<Box<dyn Any + Send>>,
}

/// A panic must not pass through the library.
unsafe extern "C" fn tell<F: FnMut(&'static str, Result<()>)>(
    state: *mut c_void,
    name: *const c_char,
    status: i32,
    detail: *const c_char,
) {
    // SAFETY: the state is the visitor of the call, which nobody else uses meanwhile.
    let visitor = unsafe { &mut *(state as *mut Visitor<F>) };
    if visitor.panic.is_some() {
        return;
    }
    let outcome = if status == sys::ATTN_OK {
        Ok(())
    } else {
        // SAFETY: never NULL, valid until this function returns.
        let detail = unsafe { CStr::from_ptr(detail) };
        Err(Error::new(
            Status::from_code(status),
            detail.to_string_lossy().into_owned(),
        ))
    };
    let told = AssertUnwindSafe(|| (visitor.visit)(static_text(name), outcome));
    if let Err(payload) = panic::catch_unwind(told) {
        visitor.panic = Some(payload);
    }
}
