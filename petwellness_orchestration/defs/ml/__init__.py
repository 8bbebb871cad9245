"""Training, gate, promotion and scoring of the visit risk model."""
