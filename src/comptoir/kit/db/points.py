"""The SQL of point reads, made from a table's declaration, so that nothing else can be read as one.

A point read finds its row by every column of the primary key or of a unique index; a read of a few rows by the first
columns of the primary key or of an index, with a LIMIT. Both take a few microseconds, however large the table is.
"""

from functools import lru_cache

from comptoir.kit.db.schema import Table


def point_query(table: Table, columns: tuple[str, ...], by: tuple[str, ...]) -> str:
    """Return a SELECT of the one row whose columns *by* have given values.

    Raises:
        ValueError: *by* is neither the primary key nor unique, or a column is unknown.
    """
    return _query(table, columns, by, point=True, limit=None)


def few_query(table: Table, columns: tuple[str, ...], by: tuple[str, ...], limit: int | None) -> str:
    """Return a SELECT of the rows whose columns *by* have given values, in the order of the primary key.

    Raises:
        ValueError: neither the primary key nor an index begins with *by*, or a column is unknown.
    """
    return _query(table, columns, by, point=False, limit=limit)


@lru_cache(maxsize=512)
def keys_query(table: Table, columns: tuple[str, ...], count: int) -> str:
    """Return a SELECT of the rows whose key (its first column, if it has several) is one of *count* values.

    Raises:
        ValueError: a column is unknown.
    """
    _check_columns(table, columns)
    return f"SELECT {', '.join(columns)} FROM {table.name} WHERE {table.key[0]} IN ({', '.join('?' * count)})"


def _check_columns(table: Table, columns: tuple[str, ...]) -> None:
    for column in columns:
        if column.removeprefix("length(").removesuffix(")") not in table.columns:
            raise ValueError(f"{table.name} has no column {column}")


@lru_cache(maxsize=512)
def _query(table: Table, columns: tuple[str, ...], by: tuple[str, ...], *, point: bool, limit: int | None) -> str:
    _check_columns(table, columns)
    if point and by != table.key and by not in table.unique:
        raise ValueError(f"{table.name} may have several rows with the same {', '.join(by)}: this is no point read")
    ordered = (table.key, *table.unique, *table.indexes)
    if not by or all(index[: len(by)] != by for index in ordered):
        raise ValueError(f"no index of {table.name} begins with {', '.join(by)}: this reads the whole table")
    where = " AND ".join([f"{column} = ?" for column in by])
    tail = "" if point else f" ORDER BY {', '.join(table.key)}"
    return f"SELECT {', '.join(columns)} FROM {table.name} WHERE {where}{tail}{f' LIMIT {limit:d}' if limit else ''}"
