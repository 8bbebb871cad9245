"""What the platform runs beside: services for development and tests. The platform itself never imports this."""
