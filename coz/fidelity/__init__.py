"""How true a result is: measured, drawn as a map, and corrected."""
