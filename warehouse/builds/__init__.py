"""What builds of the warehouse did, kept in tables, and what in it is out of the ordinary."""
