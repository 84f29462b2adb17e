"""LeRobot datasets: read and written here, at any address, with what every later stage opens."""
