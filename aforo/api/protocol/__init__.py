"""How a request becomes an answer: transports, limits and execution, whatever the schema says."""
