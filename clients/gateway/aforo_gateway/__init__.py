"""An HTTP service that Envoy's ext_authz filter asks: it checks before, and meters after."""
