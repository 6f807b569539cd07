// SPDX-License-Identifier: BSD-3-Clause
//! Compares the outcome of a call with what its case expects.

use crate::reader::{Case, Elements, Expected, Result, Tensor};

impl Case {
    pub fn judge(
        &self,
        outcome: attention::Result<()>,
        results: &[(&str, Option<&Tensor>)],
    ) -> Result<()> {
        let found = outcome
            .err()
            .map(|error| (error.status() as i32, error.to_string()));
        if found != self.error {
            return Err(format!("expected error {:?}, got {:?}", self.error, found).into());
        }
        if self.error.is_none() && self.expected.is_empty() {
            return Err("nothing is expected".into());
        }
        for expected in &self.expected {
            let result = results.iter().find(|(name, _)| *name == expected.name);
            let actual = result
                .and_then(|(_, tensor)| *tensor)
                .ok_or("an unknown result")?;
            expected.compare(actual)?;
        }
        Ok(())
    }
}

impl Expected {
    fn compare(&self, actual: &Tensor) -> Result<()> {
        let actual: Vec<f64> = match &actual.elements {
            Elements::Float32(data) => data.iter().map(|&element| element.into()).collect(),
            Elements::Float64(data) => data.clone(),
            Elements::Bfloat16(data) => {
                data.iter().map(|element| element.to_f32().into()).collect()
            }
            Elements::Float16(data) => data.iter().map(|element| element.to_f32().into()).collect(),
            _ => return Err("a result of no float type".into()),
        };
        for (i, (&expected, &actual)) in self.elements.iter().zip(&actual).enumerate() {
            if !is_near(actual, expected, self.tolerance) {
                let problem = format!(
                    "{}[{}]: expected {} within {}, got {}",
                    self.name, i, expected, self.tolerance, actual
                );
                return Err(problem.into());
            }
        }
        Ok(())
    }
}

fn is_near(actual: f64, expected: f64, tolerance: f64) -> bool {
    if expected.is_nan() {
        return actual.is_nan();
    }
    actual == expected || (actual - expected).abs() <= tolerance
}
