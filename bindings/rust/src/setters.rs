// SPDX-License-Identifier: BSD-3-Clause
//! What options structs are made of: a method for each field, of the field's name.

/// `name: type` sets a field, `name: type => Some` an optional one.
macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $type:ty $(=> $wrap:ident)?),* $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = setters!(@value $field $($wrap)?);
            self
        }
    )*};
    (@value $field:ident) => { $field };
    (@value $field:ident $wrap:ident) => { $wrap($field) };
}

pub(crate) use setters;
