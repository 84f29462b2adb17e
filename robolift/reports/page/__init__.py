"""The page itself. A package of its own, since its templates count as code of whatever imports a module beside them."""
