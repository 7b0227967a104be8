//! Figures, as dictionaries with the names of the C structs.

use fastmq::{Client, Queue, Subscription};
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn dictionary<'py>(py: Python<'py>, figures: &[(&str, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let dictionary = PyDict::new(py);
    for (name, figure) in figures {
        dictionary.set_item(name, figure)?;
    }
    Ok(dictionary)
}

/// Of a client.
pub(crate) fn of_client<'py>(py: Python<'py>, client: &Client) -> PyResult<Bound<'py, PyDict>> {
    let figures = py.detach(|| client.statistics());
    let figures = [
        ("threads", u64::from(figures.threads)),
        ("published", figures.published),
        ("delivered", figures.delivered),
        ("dropped", figures.dropped),
        ("expired", figures.expired),
        ("refused", figures.refused),
        ("requests", figures.requests),
        ("answers", figures.answers),
        ("late_answers", figures.late_answers),
        ("memory", figures.memory),
        ("memory_high", figures.memory_high),
        ("queues", figures.queues),
        ("subscriptions", figures.subscriptions),
        ("clock_calls", figures.clock_calls),
        ("locks", figures.locks),
        ("parks", figures.parks),
        ("wakes", figures.wakes),
        ("last_values", figures.last_values),
    ];
    dictionary(py, &figures)
}

/// Of a queue.
pub(crate) fn of_queue<'py>(py: Python<'py>, queue: &Queue) -> PyResult<Bound<'py, PyDict>> {
    let figures = queue.statistics();
    let (waits, wakes) = queue.waits();
    let figures = [
        ("lanes", u64::from(figures.lanes)),
        ("published", figures.published),
        ("delivered", figures.delivered),
        ("dropped", figures.dropped),
        ("expired", figures.expired),
        ("pending", figures.pending),
        ("pending_bytes", figures.pending_bytes),
        ("high_water_bytes", figures.high_water_bytes),
        ("locks", figures.locks),
        ("waits", waits),
        ("wakes", wakes),
        ("replaced", figures.replaced),
    ];
    dictionary(py, &figures)
}

/// Of a subscription.
pub(crate) fn of_subscription<'py>(
    py: Python<'py>,
    subscription: &Subscription,
) -> PyResult<Bound<'py, PyDict>> {
    let (delivered, dropped) = subscription.counts();
    let id = u64::from(subscription.id());
    dictionary(
        py,
        &[("id", id), ("delivered", delivered), ("dropped", dropped)],
    )
}
