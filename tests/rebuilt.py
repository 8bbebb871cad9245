"""What a rebuild makes again of a table, as a relation that `compare_tables` takes."""


def as_rebuilt(table: str) -> str:
    """The table; of features the rows of current versions, since superseded ones cannot be computed again."""
    if table != "ml.computed_features":
        return table
    current = "select feature_name, feature_version from ml.feature_catalogue where status = 'current'"
    return f"(select * from {table} where (feature_name, feature_version) in ({current}))"
