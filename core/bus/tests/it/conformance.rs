//! The suite on every bus, direct and through a gateway.

mod embedded {
    rotacast_bus::conformance!(crate::fixtures::Embedded);
}

mod nats {
    rotacast_bus::conformance!(crate::fixtures::Nats);
}

mod gateway_to_embedded {
    rotacast_bus::conformance!(crate::fixtures::Gatewayed<crate::fixtures::Embedded>);
}

mod gateway_to_nats {
    rotacast_bus::conformance!(crate::fixtures::Gatewayed<crate::fixtures::Nats>);
}

#[cfg(feature = "kafka")]
mod kafka {
    rotacast_bus::conformance!(crate::fixtures::Kafka);
}

#[cfg(feature = "kafka")]
mod gateway_to_kafka {
    rotacast_bus::conformance!(crate::fixtures::Gatewayed<crate::fixtures::Kafka>);
}
